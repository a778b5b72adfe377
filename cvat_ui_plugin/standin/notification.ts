// SPDX-License-Identifier: MIT
// Stands in for antd's notification, which CVAT's bundle brings, in the type check and on the test
// page.

interface Notice {
    message: string;
    description: Node | string;
    duration?: number;
    className?: string;
    style?: Record<string, string>;
}

type Kind = 'success' | 'warning' | 'info' | 'error';

function show(kind: Kind, { message, description, style, className }: Notice): void {
    const notice = document.createElement('div');
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
