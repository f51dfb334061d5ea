import type { Event, IoctlEvent, IoEvent } from '../core/event.js';
import { commandName, findCommand } from '../core/uapi/lookup.js';
import { Call, type Verdict } from './call.js';
import { judge } from './compare.js';
import type { Families } from './family.js';
import { faultArmed, faultFired, followFaultInjection } from './files/fault-injection.js';
import { fileOfFd } from './files/fds.js';
import { identifyFile, putPagesRefs } from './files/open-files.js';
import { processOf } from './files/processes.js';
import { reduceFiles } from './files/reduce.js';
import type { FileKind, OpenFile, Process } from './files/state.js';
import { fileWritten } from './hmm/file-calls.js';
import { threadWentOn } from './hmm/notified.js';
import { pagesAfter, pagesBefore } from './hmm/reduce.js';
import { endsBeside, enterCall, keepBefore, keepBeforeIoctl, leaveCall } from './in-flight.js';
import { reduceMemory } from './memory/reduce.js';
import type { Tx } from './tx.js';

/**
 * One event into one transaction: the only way in which state changes.
 *
 * Calls of the modelled interfaces (every ioctl on a VFIO, iommufd or HMM file, read/write on a migration data
 * fd) go to the family that owns the file; the verdict comes back. Everything else belongs to files or memory, or
 * changes nothing. Checks that the VFS does before any driver sees the call stand here, once: a bad fd.
 */

/** Kinds of file whose ioctls are counted as calls of the modelled interfaces. */
const DEVICE_KINDS: ReadonlySet<FileKind> = new Set([
  'iommufd',
  'vfio-container',
  'vfio-group',
  'vfio-device',
  'vfio-migration',
  'dmirror',
]);

const TYPE_VFIO = 0x3b;
const TYPE_HMM = 0x48;

export class Reducer {
  /** The call that was reduced last; its parts explain the verdict until the next one begins. */
  readonly call: Call = new Call();
  readonly #families: Families;

  constructor(families: Families) {
    this.#families = families;
    this.call.families = families;
  }

  /** Applies one event. Gives the verdict when it was a call of a modelled interface, else undefined. */
  reduce(tx: Tx, event: Event): Verdict | undefined {
    if (event.kind === 'enter') enterCall(tx, event);
    const inFlight = tx.world.inFlight.size > 0;
    if (inFlight) keepBefore(tx, event);
    const verdict = this.#reduce(tx, event);
    if (inFlight) leaveCall(tx, event);
    putPagesRefs(tx, event, this.#families);
    return verdict;
  }

  #reduce(tx: Tx, event: Event): Verdict | undefined {
    switch (event.kind) {
      case 'ioctl': {
        const verdict = this.#ioctl(tx, event);
        if (tx.world.notified.size > 0) threadWentOn(tx, event);
        return verdict;
      }
      case 'io':
        reduceFiles(tx, event, this.#families);
        fileWritten(tx, event, this.#families);
        followFaultInjection(tx, event);
        return this.#io(tx, event);
      default: {
        const space = pagesBefore(tx, event, this.#families);
        if (!reduceMemory(tx, event, this.#families)) reduceFiles(tx, event, this.#families);
        pagesAfter(tx, event, space, this.#families);
        return undefined;
      }
    }
  }

  #ioctl(tx: Tx, event: IoctlEvent): Verdict | undefined {
    const process = processOf(tx, event);
    let file = fileOfFd(tx, process, event.fd, event.path, event, this.#families);
    if (file === undefined) return undefined;
    if (file.kind === 'unknown') {
      if (!couldBeOurs(event.request)) return undefined;
      file = this.#identify(tx, file, event, process);
      if (file.kind === 'unknown') return this.#unknownFile(tx, event, process, file);
    }
    if (!DEVICE_KINDS.has(file.kind)) return undefined;
    const revealed = this.#families[file.kind]?.reveals?.(tx, file, event);
    if (revealed !== undefined) file = revealed.file;
    const command = findCommand(file.kind, event.request);
    const name = command?.name ?? commandName(file.kind, event.request);
    this.call.begin(tx, event, process, file, name, command?.sizeBytes ?? 0);
    this.call.faultArmed = faultArmed(tx, event.tid);
    // Of what shows a fact, a success is learned; errors are not.
    if (revealed !== undefined && event.ret !== -1) this.call.noteLearned();
    else if (revealed !== undefined) this.call.unknown(revealed.why);
    if (tx.world.inFlight.size > 0) {
      if (endsBeside(tx, event.tid, file)) this.call.raced = 'beside';
      const mirror = file.kind === 'dmirror' ? tx.world.mirrors.get(file.object) : undefined;
      if (mirror !== undefined) keepBeforeIoctl(tx, event, mirror);
    }
    const family = this.#families[file.kind];
    if (family?.ioctl === undefined) this.call.unknown('not modelled');
    else family.ioctl(this.call);
    this.call.endTrial();
    const verdict = judge(this.call);
    if (this.call.faultHit && verdict === 'learned') faultFired(tx, event.tid);
    return verdict;
  }

  /** A file without a known past whose kind one successful command gives away. */
  #identify(tx: Tx, file: OpenFile, event: IoctlEvent, process: Process): OpenFile {
    if (event.ret === null || event.ret === -1) return file;
    const kinds = [...DEVICE_KINDS].filter((kind) => findCommand(kind, event.request) !== undefined);
    const only = kinds.length === 1 ? kinds[0] : kinds.find((kind) => this.#families[kind]?.claims?.(event));
    return only === undefined ? file : identifyFile(tx, file, only, this.#families, event, process);
  }

  #unknownFile(tx: Tx, event: IoctlEvent, process: Process, file: OpenFile): Verdict {
    this.call.begin(tx, event, process, file, commandName('unknown', event.request), 0);
    this.call.unknown('which file is behind the fd was not recorded');
    return judge(this.call);
  }

  #io(tx: Tx, event: IoEvent): Verdict | undefined {
    const process = processOf(tx, event);
    const file = fileOfFd(tx, process, event.fd, event.path, event, this.#families);
    if (file === undefined) return undefined;
    const family = this.#families[file.kind];
    if (family?.io === undefined) return undefined;
    this.call.begin(tx, event, process, file, `${file.kind} ${event.call}`, 0);
    family.io(this.call);
    return family.countsIo ? judge(this.call) : undefined;
  }
}

function couldBeOurs(request: number): boolean {
  const type = (request >>> 8) & 0xff;
  return type === TYPE_VFIO || (type === TYPE_HMM && (request & 0xff) <= 8 && ((request >>> 16) & 0x3fff) === 40);
}
