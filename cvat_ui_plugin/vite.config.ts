// SPDX-License-Identifier: MIT
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

// What CVAT's page brings, and what stands in for it here.
const BROUGHT = {
    'antd/lib/modal': './standin/modal.ts',
    'antd/lib/notification': './standin/notification.ts',
    react: './standin/react.ts',
};

// The bundle only shows that the plugin builds, and is what the test page runs: CVAT's own build
// compiles src/ itself and brings the rest.
export default defineConfig(({ command }) => ({
    build: {
        target: 'es2020',
        lib: { entry: 'src/ts/index.tsx', formats: ['es'], fileName: 'sam2_tracker' },
        rollupOptions: { external: Object.keys(BROUGHT) },
    },
    resolve: {
        alias:
            command === 'serve'
                ? Object.entries(BROUGHT).map(([find, file]) => ({
                      find,
                      replacement: fileURLToPath(new URL(file, import.meta.url)),
                  }))
                : [],
    },
    // generous: the machine may be busy
    test: { include: ['tests/**/*.test.ts'], testTimeout: 120_000 },
}));
