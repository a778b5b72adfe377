// SPDX-License-Identifier: MIT
// Stands in for antd's notification, which CVAT's bundle brings, in the type check and on the test
// page.

interface Notice {
    /** A notice takes the place of the one with the same key. */
    key?: string;
    message: string;
    description: Node | string;
    duration?: number;
    className?: string;
    style?: Record<string, string>;
}

type Kind = 'success' | 'warning' | 'info' | 'error';

function show(kind: Kind, { key, message, description, style, className }: Notice): void {
    if (key) document.querySelector(`#notices [data-key="${key}"]`)?.remove();
    const notice = document.createElement('div');
    notice.dataset.key = key;
    notice.className = `notice notice-${kind} ${className ?? ''}`;
    const title = document.createElement('strong');
    title.textContent = message;
    const text = document.createElement('div');
    text.append(description);
    Object.assign(text.style, style);
    notice.append(title, text);
    document.querySelector('#notices')?.prepend(notice);
}

const notification: Record<Kind, (notice: Notice) => void> = {
    success: (notice) => show('success', notice),
    warning: (notice) => show('warning', notice),
    info: (notice) => show('info', notice),
    error: (notice) => show('error', notice),
};

export default notification;
