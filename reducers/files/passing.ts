import type { NewFdsEvent } from '../../core/event.js';
import type { Families } from '../family.js';
import type { Tx } from '../tx.js';
import { fileOfFd, linkFd } from './fds.js';
import { kindOfPath, plainPath } from './kinds.js';
import { addFdRef, putFdRef } from './open-files.js';
import { processOf } from './processes.js';
import type { OpenFile } from './state.js';

/**
 * Files on their way through a socket (SCM_RIGHTS, net/core/scm.c): the message holds each of them until somebody receives it, so
 * that the sender may close its own fd. Which socket a message came through is not looked at: a received fd is the file
 * that was sent first of those with the name that the recorder prints. A file that nobody of the recording
 * receives stays open, as it may be in another process.
 */
export interface PassedFile {
  readonly id: number;
  readonly file: number;
}

/** More are not followed: the oldest are taken for closed. */
const PASSED_MAX = 1024;

/** A message with fds was sent. */
export function passFiles(tx: Tx, event: NewFdsEvent, families: Families): void {
  const process = processOf(tx, event);
  event.fds.forEach((fd, index) => {
    const file = fileOfFd(tx, process, fd, event.paths[index] ?? '', event, families);
    if (file === undefined) return;
    const { passed } = tx.world;
    const oldest = passed.size < PASSED_MAX ? undefined : passed.first();
    if (oldest !== undefined) takeOut(tx, oldest, event, families);
    const id = tx.nextId('passed');
    passed.set(id, Object.freeze({ id, file: file.id }));
    addFdRef(tx, file.id);
  });
}

/** Enters a received fd for the file that it is, where its sending was recorded. False where it was not. */
export function receiveFile(tx: Tx, event: NewFdsEvent, fd: number, path: string, families: Families): boolean {
  for (const one of tx.world.passed.values()) {
    const file = tx.world.files.get(one.file);
    if (file === undefined || !fits(file, path)) continue;
    linkFd(tx, processOf(tx, event), fd, file.id, event.cloexec, event, families);
    takeOut(tx, one, event, families);
    return true;
  }
  return false;
}

function takeOut(tx: Tx, one: PassedFile, event: NewFdsEvent, families: Families): void {
  tx.world.passed.delete(one.id);
  putFdRef(tx, one.file, event, families);
}

function fits(file: OpenFile, path: string): boolean {
  if (path === '' || file.path === '') return true;
  return kindOfPath(path) === file.kind && plainPath(path) === plainPath(file.path);
}
