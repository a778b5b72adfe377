// SPDX-License-Identifier: MIT
// The cases that the plugin and the command line share (tests/action_cases/*.json).

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What a file of cases holds; a missing file is an error. */
export function casesOf<T>(name: string): T {
    const path = fileURLToPath(new URL(`../../tests/action_cases/${name}`, import.meta.url));
    return JSON.parse(readFileSync(path, 'utf8')) as T;
}
