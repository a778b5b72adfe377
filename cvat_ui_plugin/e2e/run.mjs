// SPDX-License-Identifier: MIT
// The action in a real browser against the real function:
//   Chromium -> stand-in CVAT (this process) -> serve.py with the bundled micro model
// Needs `npm run build` before. FUNCTION_URL uses a function that is already running;
// CHROMIUM names the browser, PYTHON the interpreter, SCREENSHOTS a folder to write them to.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, mkdir, readFile, rm } from 'node:fs/promises';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from 'playwright-core';
import { createServer } from 'vite';

const PLUGIN = fileURLToPath(new URL('..', import.meta.url));
const ROOT = path.join(PLUGIN, '..');
const CLIP = path.join(ROOT, 'out', 'ui_plugin');
const PYTHON = process.env.PYTHON ?? path.join(ROOT, '.venv', 'bin', 'python');
const SCREENSHOTS = process.env.SCREENSHOTS ?? CLIP;
const START_TIMEOUT_MS = 180_000;
const LEAST_MS_PER_CALL = 200; // what happens on the way must be there long enough to be seen
const FLAGS = [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
];

function browserPath() {
    const found = [
        process.env.CHROMIUM,
        '/usr/bin/chromium',
        '/usr/bin/chromium-browser',
        '/usr/bin/google-chrome',
    ].find((file) => file && existsSync(file));
    if (!found)
        throw new Error(
            'No Chromium: install one (apt-get install chromium) or name it in CHROMIUM.',
        );
    return found;
}

async function freePort() {
    const server = net.createServer();
    await new Promise((resolve) => {
        server.listen(0, '127.0.0.1', resolve);
    });
    const { port } = server.address();
    await new Promise((resolve) => {
        server.close(resolve);
    });
    return port;
}

async function startFunction() {
    const port = await freePort();
    const child = spawn(PYTHON, ['-m', 'tools.serve', '--port', `${port}`], {
        cwd: ROOT,
        stdio: ['ignore', 'ignore', 'pipe'],
        // its threads wait politely: the browser needs the cores too
        env: { OMP_WAIT_POLICY: 'PASSIVE', GOMP_SPINCOUNT: '0', ...process.env },
    });
    let log = '';
    const ready = new Promise((resolve, reject) => {
        child.stderr.on('data', (data) => {
            log += data;
            if (/worker \d+ is ready/.test(log)) resolve();
        });
        child.on('exit', (code) => reject(new Error(`serve.py ended with ${code}:\n${log}`)));
        setTimeout(
            () => reject(new Error(`serve.py is not ready:\n${log}`)),
            START_TIMEOUT_MS,
        ).unref();
    });
    await ready;
    return { url: `http://127.0.0.1:${port}/`, stop: () => child.kill('SIGTERM') };
}

/** CVAT's server for the page: the lambda endpoint, and the frames for the canvas. */
function bridge(url, requests) {
    return {
        name: 'stand-in-cvat',
        async configureServer(server) {
            const { createLambda } = await server.ssrLoadModule('/standin/server.ts');
            const { realFunction } = await server.ssrLoadModule('/standin/function.ts');
            const clip = JSON.parse(await readFile(path.join(CLIP, 'clip.json'), 'utf8'));
            const lambda = createLambda({
                functionID: 'pth-facebookresearch-sam2-tracker',
                jobID: 42,
                startFrame: 0,
                stopFrame: clip.frames - 1,
                invoke: realFunction(url, CLIP),
            });
            server.middlewares.use('/clip', async (request, response) => {
                response.end(await readFile(path.join(CLIP, path.basename(request.url))));
            });
            server.middlewares.use('/api', async (request, response) => {
                let text = '';
                for await (const part of request) text += part;
                const body = text ? JSON.parse(text) : undefined;
                if (body) {
                    requests.push({
                        type: body.type,
                        frame: body.frame,
                        memory: body.shapes?.[0]?.memory,
                    });
                    await pause(LEAST_MS_PER_CALL);
                }
                const answer = await lambda(request.method, `/api${request.url}`, body);
                response.writeHead(answer.status, { 'Content-Type': 'application/json' });
                response.end(JSON.stringify(answer.body));
            });
        },
    };
}

async function scenario(page, requests) {
    const store = (call, ...args) =>
        page.evaluate(([name, given]) => window.standIn.store[name](...given), [call, args]);
    const shot = (name) =>
        page.screenshot({ path: path.join(SCREENSHOTS, `ui_plugin_${name}.png`) });
    const dismiss = () => page.evaluate(() => document.querySelector('#notices').replaceChildren());
    const notice = async (kind) => page.locator(`.notice-${kind}`).first().innerText();
    const setTarget = (frame) => page.getByLabel('Target frame').fill(`${frame}`);
    const finished = () => page.locator('#run:enabled').waitFor({ timeout: 300_000 });
    const framesOf = (shapes, type) =>
        shapes
            .filter((one) => one.type === type)
            .map(({ frame }) => frame)
            .sort((a, b) => a - b);

    // all objects of the frame: Ctrl+E with nothing active
    const drawn = await store('export');
    assert.equal(drawn.shapes.length, 3);
    await page.keyboard.press('Control+e');
    await setTarget(12);
    await page.getByLabel('Convert polygon shapes to tracks').check();
    await shot('dialog');
    const ticks = await page.evaluate(() => {
        window.ticks = 0;
        const tick = () => {
            window.ticks += 1;
            requestAnimationFrame(tick);
        };
        return tick() ?? 0;
    });
    assert.equal(ticks, 0);
    requests.length = 0;
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.locator('#message', { hasText: /Frame ([4-9]|1\d) / }).waitFor();
    await shot('running');
    await finished();
    assert.deepEqual(
        requests.map(({ frame }) => frame),
        Array.from({ length: 13 }, (_, frame) => frame),
    );
    // the page was drawn again and again between the calls
    assert.ok((await page.evaluate(() => window.ticks)) > requests.length);
    await page.getByRole('button', { name: 'Close' }).click();
    const tracked = await store('export');
    assert.equal(tracked.tracks.length, 1);
    const [track] = tracked.tracks;
    assert.equal(track.shapes.at(-1).frame, 13);
    assert.equal(track.shapes.at(-1).outside, true);
    assert.deepEqual(framesOf(tracked.shapes, 'polygon'), []);
    assert.ok(framesOf(tracked.shapes, 'mask').length > 3);
    assert.deepEqual(
        framesOf(tracked.shapes, 'rectangle'),
        Array.from({ length: 13 }, (_, frame) => frame),
    );
    const said = await notice('success');
    assert.match(said, /Look here first:\s*Frame \d+: object \d+, confidence 0\.\d\d/);
    const [frames, summary] = ['Look here first', '3 objects tracked over 12 frames (1 to 12)'];
    assert.ok(said.indexOf(frames) < said.indexOf(summary), 'the links come first');
    // the message opens the frame that it names
    const jump = page.locator('.notice-success a').first();
    const [, worst] = /^Frame (\d+):/.exec(await jump.innerText());
    await jump.click();
    assert.match(await page.locator('#frame').innerText(), new RegExp(`^frame ${worst} of`));
    await page.evaluate(() => window.standIn.show(4));
    await shot('result');
    await dismiss();

    // one undo step
    assert.equal(await page.evaluate(() => window.standIn.store.undoSteps), 1);
    await page.getByRole('button', { name: 'Undo' }).click();
    assert.deepEqual(await store('export'), drawn);
    await page.getByRole('button', { name: 'Redo' }).click();
    assert.equal((await store('export')).tracks.length, 1);

    // the settings are an action of their own; a second run makes the track's keyframes sparse
    const openSettings = async () => {
        await page.mouse.move(5, 5);
        await page.getByRole('button', { name: 'Run actions' }).click();
        await page.locator('#action').selectOption('Segment Anything 2: Settings');
    };
    await openSettings();
    await page.getByLabel('Memory policy').selectOption('anchors');
    await page.getByLabel('Keyframes of tracks').selectOption('as few as keep an IoU of 0.95');
    await shot('settings');
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await finished();
    assert.match(await notice('success'), /Memory policy: anchors/);
    await dismiss();
    await page.locator('#action').selectOption('Segment Anything 2: Tracker');
    await setTarget(12);
    await page.evaluate(() => window.standIn.show(0));
    requests.length = 0;
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await finished();
    assert.ok(requests.length > 0);
    assert.ok(
        requests
            .filter(({ type }) => type === 'init_tracking')
            .every(({ memory }) => memory === 'anchors'),
    );
    const [, count] = /Sparse: (\d+) keyframes? of \d+ points in all stand for \d+ frames/.exec(
        await notice('success'),
    );
    const [thin] = (await store('export')).tracks;
    assert.equal(thin.shapes.length, Number(count) + 2); // where it was drawn, and where it is closed
    await page.getByRole('button', { name: 'Close' }).click();
    await page.evaluate(() => localStorage.clear());
    await dismiss();
    await store('undo');

    // one object, by the mouse; nothing is doubled
    await page.evaluate(() => window.standIn.show(0));
    const mask = drawn.shapes.find(({ type }) => type === 'mask');
    const at = await page.evaluate((id) => {
        const { points } = window.standIn.store.get(0).find(({ clientID }) => clientID === id);
        const [left, top, right] = points.slice(-4);
        let start = 0; // the middle of the longest run
        let best = { length: 0, at: 0 };
        points.slice(0, -4).forEach((run, index) => {
            if (index % 2 && run > best.length)
                best = { length: run, at: start + Math.floor(run / 2) };
            start += run;
        });
        const width = right - left + 1;
        return {
            x: 3 * (left + (best.at % width) + 0.5),
            y: 3 * (top + Math.floor(best.at / width) + 0.5),
        };
    }, mask.clientID);
    await page.locator('#canvas').hover({ position: at });
    await page.keyboard.press('Control+e');
    await setTarget(12);
    requests.length = 0;
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.locator('#dialog').waitFor({ state: 'hidden', timeout: 300_000 });
    assert.match(await notice('success'), /1 object tracked over 12 frames/);
    assert.match(await notice('success'), /Replaced \d+ shapes of an earlier run/);
    assert.deepEqual(
        framesOf((await store('export')).shapes, 'mask'),
        framesOf(tracked.shapes, 'mask'),
    );
    await dismiss();

    // cancel: what is done is kept, and shown
    await store('undo');
    await store('undo');
    await page.mouse.move(5, 5);
    await page.getByRole('button', { name: 'Run actions' }).click();
    await setTarget(15);
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await page.locator('#message', { hasText: /Frame ([3-9]|1\d) / }).waitFor();
    await page.getByRole('button', { name: 'Cancel' }).click();
    await finished();
    await page.getByRole('button', { name: 'Close' }).click();
    const part = framesOf((await store('export')).shapes, 'rectangle');
    assert.ok(part.length >= 3 && part.length < 16, `${part}`);
    assert.match(await notice('warning'), /What is done is kept/);
    await dismiss();

    // the session ends on the way: what is done is kept, and the message says where it stopped
    await store('undo');
    await page.route('**/api/lambda/functions/*', (route) =>
        route.request().postDataJSON().frame === 5
            ? route.fulfill({
                  status: 401,
                  contentType: 'application/json',
                  body: '{"detail": "Authentication credentials were not provided."}',
              })
            : route.continue(),
    );
    await page.evaluate(() => window.standIn.show(0));
    await page.getByRole('button', { name: 'Run actions' }).click();
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await finished();
    await page.getByRole('button', { name: 'Close' }).click();
    assert.deepEqual(framesOf((await store('export')).shapes, 'rectangle'), [0, 1, 2, 3, 4]);
    assert.match(await notice('warning'), /Stopped at frame 5: You are logged out \(401\)/);
    await page.evaluate(() => window.standIn.show(4));
    await shot('stopped');
    await page.unroute('**/api/lambda/functions/*');
    await dismiss();

    // backwards
    await store('undo');
    const { tracks } = tracked;
    assert.equal(tracks.length, 1);
    await store('redo');
    const before = await store('export');
    await page.evaluate(() => window.standIn.show(4));
    await page.getByRole('button', { name: 'Run actions' }).click();
    await setTarget(1);
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await finished();
    assert.match(await notice('error'), /target frame 1 is before the current frame 4/);
    await page.getByLabel('Track backwards').check();
    requests.length = 0;
    await page.getByRole('button', { name: 'Run', exact: true }).click();
    await finished();
    assert.deepEqual(
        requests.map(({ frame }) => frame),
        [4, 0, 4, 3, 2, 1], // what a person drew on frame 0 joins
    );
    assert.deepEqual(
        framesOf((await store('export')).shapes, 'rectangle'),
        framesOf(before.shapes, 'rectangle'),
    );
}

const profile = await mkdtemp(path.join(os.tmpdir(), 'ui-plugin-'));
const undo = [() => rm(profile, { recursive: true, force: true })];
try {
    execFileSync(PYTHON, [path.join(PLUGIN, 'e2e', 'make_clip.py'), CLIP], { stdio: 'inherit' });
    await mkdir(SCREENSHOTS, { recursive: true });
    let url = process.env.FUNCTION_URL;
    if (!url) {
        const server = await startFunction();
        undo.push(server.stop);
        ({ url } = server);
    }
    const requests = [];
    const server = await createServer({
        root: PLUGIN,
        logLevel: 'warn',
        appType: 'mpa',
        optimizeDeps: { noDiscovery: true },
        server: { host: '127.0.0.1', port: 0, hmr: false, watch: null },
        plugins: [bridge(url, requests)],
    });
    await server.listen();
    undo.push(() => server.close());
    const browser = await chromium.launchPersistentContext(profile, {
        executablePath: browserPath(),
        headless: true,
        args: FLAGS,
        viewport: { width: 1320, height: 660 },
    });
    undo.push(() => browser.close());
    const page = await browser.newPage();
    const errors = [];
    page.on('pageerror', (error) => errors.push(error));
    page.setDefaultTimeout(300_000);
    await page.goto(`${server.resolvedUrls.local[0]}e2e/index.html`);
    await page.locator('body[data-ready=true]').waitFor();
    await scenario(page, requests);
    assert.deepEqual(errors, []);
    console.log('e2e: the action ran in Chromium against the real function.');
} finally {
    for (const step of undo.reverse()) await step();
}
