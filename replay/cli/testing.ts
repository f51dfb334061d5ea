import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Runs the built program as a user does, for tests. */

export const MAIN = fileURLToPath(new URL('../main.js', import.meta.url));

/** A recording of the bundled corpus. */
export function corpus(name: string): string {
  return fileURLToPath(new URL(`../../../traces/corpus/${name}`, import.meta.url));
}

// What a developer's shell says about colours and widths must not change what a test sees.
const ENV = { PATH: process.env['PATH'], HOME: process.env['HOME'], LC_ALL: 'tr_TR.UTF-8' };

export interface Ran {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function iotape(args: readonly string[], input: string | Buffer = '', cwd?: string): Ran {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    input,
    env: ENV,
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 28,
  });
  return { status, stdout, stderr };
}

/**
 * Starts the program with a standard input that gives `input` and stays open, and interrupts it when it has had time to read
 * that: how long this takes nobody knows, so it is tried with longer and longer waits until `isRead` says so.
 */
export async function interrupted(args: readonly string[], input: string, isRead: (ran: Ran) => boolean): Promise<Ran> {
  let ran = await interruptedAfter(args, input, FIRST_WAIT_MS);
  for (let waitMs = FIRST_WAIT_MS * 2; !isRead(ran) && waitMs <= LAST_WAIT_MS; waitMs *= 2)
    ran = await interruptedAfter(args, input, waitMs);
  return ran;
}

const FIRST_WAIT_MS = 1000;
const LAST_WAIT_MS = 32_000;

async function interruptedAfter(args: readonly string[], input: string, afterMs: number): Promise<Ran> {
  const child = spawn(process.execPath, [MAIN, ...args], { env: ENV, stdio: 'pipe' });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  child.stdin.on('error', () => undefined);
  child.stdin.write(input);
  setTimeout(() => child.kill('SIGINT'), afterMs);
  const status = await new Promise<number | null>((resolve) => child.on('close', resolve));
  return { status, stdout, stderr };
}

/** A directory for one test file's recordings. */
export class Workspace {
  readonly path: string = mkdtempSync(join(tmpdir(), 'iotape-cli-'));

  write(name: string, content: string | Buffer): string {
    const path = join(this.path, name);
    writeFileSync(path, content);
    return path;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** A client that asks a container for its version and gets a wrong answer the second time; line 5 is damaged. */
export const WRONG_VERSION = `100 1700000000.000000 execve("/bin/vmm", ["vmm"], 0x7ffd00000000 /* 3 vars */) = 0
100 1700000000.000100 openat(AT_FDCWD, "/dev/vfio/vfio", O_RDWR|O_CLOEXEC) = 3</dev/vfio/vfio>
100 1700000000.000200 ioctl(3</dev/vfio/vfio>, VFIO_GET_API_VERSION, 0) = 0
100 1700000000.000300 ioctl(3</dev/vfio/vfio>, VFIO_GET_API_VERSION, 0) = 7
this is no strace line
100 1700000000.000400 mmap(NULL, 8192, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0) = 0x7f0000000000
100 1700000000.000500 munmap(0x7f0000000000, 4096) = 0
100 1700000000.000600 close(3</dev/vfio/vfio>) = 0
100 1700000000.000700 exit_group(0) = ?
100 1700000000.000800 +++ exited with 0 +++
`;

/** The same without anything wrong. */
export const CLEAN: string = WRONG_VERSION.split('\n')
  .filter((line) => !line.includes('= 7') && !line.startsWith('this'))
  .join('\n');
