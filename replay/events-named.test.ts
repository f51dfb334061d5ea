import * as assert from 'uvu/assert';
import { suite } from '../core/testing.js';
import { eventsNamed, withPlaces } from './events-named.js';

const test = suite('events named');

test('events are found in the order of the text, each once', () => {
  assert.equal(eventsNamed('mapping of event 12, event 3; events 4; event 12; event x'), [12, 3]);
  assert.equal(eventsNamed(''), []);
});

test('a place stands behind each event that has one', () => {
  const text = withPlaces('event 1 took it, event 2 gave it', (seq) => (seq === 1 ? 'line 7' : ''));
  assert.is(text, 'event 1 (line 7) took it, event 2 gave it');
});
