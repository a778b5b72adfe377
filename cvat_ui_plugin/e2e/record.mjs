// SPDX-License-Identifier: MIT
// Record the answers of a function that runs with SAM2_PRECISION=float32, for tests/demo.test.ts:
// FUNCTION_URL=http://… npm run record

import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const PLUGIN = fileURLToPath(new URL('..', import.meta.url));
const ROOT = path.join(PLUGIN, '..');
if (!process.env.FUNCTION_URL)
    throw new Error('FUNCTION_URL: where the function listens (make serve)');
const python = process.env.PYTHON ?? path.join(ROOT, '.venv', 'bin', 'python');
execFileSync(
    python,
    [path.join(PLUGIN, 'e2e', 'make_clip.py'), path.join(ROOT, 'out', 'ui_plugin')],
    { stdio: 'inherit' },
);
execFileSync('npx', ['vitest', 'run', 'tests/demo.test.ts'], { cwd: PLUGIN, stdio: 'inherit' });
