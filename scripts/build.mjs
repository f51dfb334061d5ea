// npm run build: compiles into dist/.
import { build } from './setup.mjs';

build();
