// SPDX-License-Identifier: MIT

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What a file of cases holds, which the plugin and the command line share. */
export function casesOf<T>(name: string): T {
    const path = fileURLToPath(new URL(`../../tests/action_cases/${name}`, import.meta.url));
    return JSON.parse(readFileSync(path, 'utf8')) as T;
}
