import type { MessagePort } from 'node:worker_threads';

/** How many batches may still be sent: each number that comes through the port allows so many more. */
export class Credit {
  #left: number;
  #resume: () => void = () => undefined;

  constructor(port: MessagePort, credit: number) {
    this.#left = credit;
    port.on('message', (more: number) => {
      this.#left += more;
      this.#resume();
    });
  }

  /** Waits where nothing is left. One caller at a time. */
  async spend(): Promise<void> {
    while (this.#left === 0) {
      await new Promise<void>((resolve) => {
        this.#resume = resolve;
      });
    }
    this.#left--;
  }
}
