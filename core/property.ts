import * as fc from 'fast-check';

/**
 * The seed of random tests. It is the same in every run, so that a test that turns red does so for a change and not
 * by chance. `FC_SEED=N` takes another, `FC_SEED=random npm test` a new one for the run, which it prints.
 */
export const SEED = Number(process.env['FC_SEED'] ?? 20261121);

fc.configureGlobal({ seed: SEED, includeErrorInReport: true });

export { fc };
