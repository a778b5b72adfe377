// SPDX-License-Identifier: MIT
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const NOTIFICATION = 'antd/lib/notification';

// The bundle only shows that the plugin builds, and is what the test page runs: CVAT's own build
// compiles src/ itself and brings antd.
export default defineConfig(({ command }) => ({
    build: {
        target: 'es2020',
        lib: { entry: 'src/ts/index.tsx', formats: ['es'], fileName: 'sam2_tracker' },
        rollupOptions: { external: [NOTIFICATION] },
    },
    resolve: {
        alias:
            command === 'serve'
                ? [
                      {
                          find: NOTIFICATION,
                          replacement: fileURLToPath(
                              new URL('./standin/notification.ts', import.meta.url),
                          ),
                      },
                  ]
                : [],
    },
    // generous: the machine may be busy
    test: { include: ['tests/**/*.test.ts'], testTimeout: 120_000 },
}));
