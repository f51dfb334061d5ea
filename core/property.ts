import * as fc from 'fast-check';

const wanted = process.env['FC_SEED'];

/**
 * The seed of random tests. It is the same in every run, so that a test that turns red does so for a change and not
 * by chance. `FC_SEED=random` tries a new one, `FC_SEED=N` repeats the one that a failure printed.
 */
export const SEED = wanted === 'random' ? Date.now() & 0x7fff_ffff : Number(wanted ?? 20261121);

fc.configureGlobal({ seed: SEED, includeErrorInReport: true });

export { fc };
