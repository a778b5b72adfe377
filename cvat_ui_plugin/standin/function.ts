// SPDX-License-Identifier: MIT
// The real function over HTTP, given the image as CVAT's server gives it. Runs in node.

import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { Invoke } from './server';

const TIMEOUT_MS = 300_000;

/** `url`: where serve.py listens; `folder`: the frames as 000.png, 001.png, … */
export function realFunction(url: string, folder: string): Invoke {
    return async (frame, { shapes, states }) => {
        const file = path.join(folder, `${String(frame).padStart(3, '0')}.png`);
        const image = (await readFile(file)).toString('base64');
        const response = await fetch(url, {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ image, shapes, states }),
            signal: AbortSignal.timeout(TIMEOUT_MS),
        });
        return { status: response.status, body: (await response.json()) as unknown };
    };
}
