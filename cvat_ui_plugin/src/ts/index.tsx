// SPDX-License-Identifier: MIT
// Entry of the plugin: registers the annotation action in CVAT's page.

import Modal from 'antd/lib/modal';
import notification from 'antd/lib/notification';
import { createElement, Fragment } from 'react';
import { createAction } from './action';
import { CollectionAction, ComponentBuilder, Job, PluginWindow } from './cvat';
import { Page } from './page';
import { Report } from './report';
import { ACTION_NAME } from './server';
import { createSettingsAction } from './settings';
import { Cancelled } from './waiting';

/** What the settings are kept as in the browser. */
const KEPT_AS = 'sam2-tracker';
/** What CVAT's store calls its workspace for reviews. */
const REVIEW = 'Review';
/** Seconds that a message stays that needs no answer, where the user can see it. */
const SHOWN_S = 30;
/** As the seconds of a message: it stays until it is closed. */
const UNTIL_CLOSED = 0;
/** What the page knows our message by: that of the next run takes its place, and they do not pile up over
 * the list of objects. */
const MESSAGE = 'sam2-tracker';
/** How high the text of a message may be; the rest is scrolled to. CVAT's page does not cut long messages,
 * they go on below the window. */
const SEEN = 'calc(100vh - 160px)';

interface Annotation {
    job?: { instance?: Job | null };
    player?: { frame?: { number: number } };
    workspace?: string;
}

const builder: ComponentBuilder = ({ core, dispatch, store, actionCreators }) => {
    const annotation = (): Annotation | undefined =>
        (store.getState() as { annotation?: Annotation }).annotation;
    // a page that does not tell which job is open cannot tell that one was closed
    const isOpen = (job: Job): boolean => {
        const open = annotation()?.job;
        return open === undefined || open.instance === job;
    };
    const show = (job: Job, frame: number): void => {
        if (isOpen(job) && actionCreators.changeFrameAsync) {
            dispatch(actionCreators.changeFrameAsync(frame, false, 1, true));
        }
    };
    // a message outlives its job
    const jump = (job: Job, frame: number): void => {
        if (isOpen(job)) show(job, frame);
        else {
            notification.info({
                key: MESSAGE,
                message: 'This job is no longer open',
                description: `Open job ${job.id}, and go to frame ${frame}.`,
                duration: SHOWN_S,
            });
        }
    };
    /** The frames to look at come first: the lines may be more than can be seen at once. */
    const describe = ({ lines, jumps }: Report, job: Job) =>
        createElement(
            'div',
            { style: { maxHeight: SEEN, overflowY: 'auto' } },
            jumps.length ? 'Look here first:' : '',
            ...jumps.map(({ frame, text }) =>
                createElement(
                    'a',
                    {
                        key: frame,
                        style: { display: 'block' },
                        onClick: () => jump(job, frame),
                    },
                    text,
                ),
            ),
            lines.join('\n'),
        );
    const page: Page = {
        tell: (report, job) => {
            const { kind, title, jumps } = report;
            const mustBeSeen = kind === 'warning' || jumps.length > 0 || document.hidden;
            notification[kind]({
                key: MESSAGE,
                message: title,
                description: describe(report, job),
                duration: mustBeSeen ? UNTIL_CLOSED : SHOWN_S,
                className: 'cvat-notification-sam2-tracker',
                style: { whiteSpace: 'pre-line' },
            });
        },
        ask: ({ title, text, yes, no }) =>
            new Promise((resolve, reject) => {
                const neither = {
                    style: { display: 'block' },
                    onClick: () => {
                        question.destroy();
                        reject(new Cancelled());
                    },
                };
                const question = Modal.confirm({
                    title,
                    content: createElement(
                        Fragment,
                        null,
                        text,
                        createElement('a', neither, 'Cancel the run'),
                    ),
                    okText: yes,
                    cancelText: no,
                    className: 'cvat-modal-sam2-tracker',
                    // neither Esc nor Enter is an answer
                    keyboard: false,
                    autoFocusButton: null,
                    onOk: () => resolve(true),
                    onCancel: () => resolve(false),
                });
            }),
        refresh: (job, frame) => show(job, annotation()?.player?.frame?.number ?? frame),
        isOpen,
        isReview: () => annotation()?.workspace === REVIEW,
        sleep: (milliseconds) =>
            new Promise((resolve) => {
                setTimeout(resolve, milliseconds);
            }),
        breathe: () =>
            new Promise((resolve) => {
                const { port1, port2 } = new MessageChannel();
                port1.onmessage = () => {
                    port1.close();
                    resolve();
                };
                port2.postMessage(null);
            }),
        now: () => performance.now(),
        kept: () => localStorage.getItem(KEPT_AS),
        keep: (text) => localStorage.setItem(KEPT_AS, text),
        random: () => Math.random(),
    };
    const action = createAction(core, page);
    const own = [action, createSettingsAction(core, page)];
    for (const one of own) {
        core.actions.register(one).catch((error: Error) => {
            notification.error({
                message: `The action "${one.name}" was not registered`,
                description: error.message,
            });
        });
    }
    // The dialog preselects the first action of the list. CVAT's own first one removes shapes.
    core.plugins
        ?.register({
            name: `${ACTION_NAME}: first in the list of actions`,
            description: 'Lists the tracker before the other annotation actions',
            cvat: {
                actions: {
                    list: {
                        leave: async (_plugin: unknown, actions: CollectionAction[]) => [
                            ...actions.filter((one) => one === action),
                            ...actions.filter((one) => one !== action),
                        ],
                    },
                },
            },
        })
        .catch(() => {
            // then the user chooses the action, as the documentation says
        });
    return {
        name: action.name,
        destructor: () => {
            for (const one of own) core.actions.unregister?.(one);
        },
    };
};

const { cvatUI } = window as PluginWindow;
if (cvatUI) {
    cvatUI.registerComponent(builder);
} else {
    window.addEventListener(
        'plugins.ready',
        () => (window as PluginWindow).cvatUI?.registerComponent(builder),
        { once: true },
    );
}
