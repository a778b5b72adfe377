// SPDX-License-Identifier: MIT
// Entry of the plugin: registers the annotation action in CVAT's page.

import notification from 'antd/lib/notification';
import { createAction, Page } from './action';
import { ComponentBuilder, PluginWindow } from './cvat';

const builder: ComponentBuilder = ({ core, dispatch, store, actionCreators }) => {
    const page: Page = {
        tell: ({ kind, title, lines }) =>
            notification[kind]({
                message: title,
                description: lines.join('\n'),
                duration: kind === 'warning' ? 0 : 15,
                className: 'cvat-notification-sam2-tracker',
                style: { whiteSpace: 'pre-line' },
            }),
        refresh: (job, frame) => {
            const { annotation } = store.getState() as {
                annotation?: {
                    job?: { instance?: { id: number } };
                    player?: { frame?: { number: number } };
                };
            };
            if (annotation?.job?.instance?.id !== job.id || !actionCreators.changeFrameAsync)
                return;
            const current = annotation.player?.frame?.number ?? frame;
            dispatch(actionCreators.changeFrameAsync(current, false, 1, true));
        },
        sleep: (milliseconds) =>
            new Promise((resolve) => {
                setTimeout(resolve, milliseconds);
            }),
        now: () => performance.now(),
    };
    const action = createAction(core, page);
    core.actions.register(action).catch((error: Error) => {
        notification.error({
            message: `The action "${action.name}" was not registered`,
            description: error.message,
        });
    });
    return {
        name: action.name,
        destructor: () => {
            core.actions.unregister?.(action);
        },
    };
};

window.addEventListener(
    'plugins.ready',
    () => {
        (window as PluginWindow).cvatUI?.registerComponent(builder);
    },
    { once: true },
);
