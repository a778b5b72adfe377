// SPDX-License-Identifier: MIT
// Stands in for antd's modal, which CVAT's bundle brings, in the type check and on the test page.

interface Question {
    title: string;
    content: Node | string;
    okText: string;
    cancelText: string;
    className?: string;
    /** Whether Esc counts as the second answer. */
    keyboard: boolean;
    autoFocusButton: 'ok' | 'cancel' | null;
    onOk(): void;
    onCancel(): void;
}

function confirm({
    title,
    content,
    okText,
    cancelText,
    className,
    keyboard,
    onOk,
    onCancel,
}: Question): { destroy(): void } {
    const dialog = document.createElement('dialog');
    dialog.className = className ?? '';
    dialog.oncancel = (event) => {
        event.preventDefault();
        if (!keyboard) return;
        dialog.remove();
        onCancel();
    };
    const heading = document.createElement('strong');
    heading.textContent = title;
    const text = document.createElement('p');
    text.append(content);
    const button = (label: string, act: () => void): HTMLButtonElement => {
        const element = document.createElement('button');
        element.textContent = label;
        element.onclick = () => {
            dialog.remove();
            act();
        };
        return element;
    };
    dialog.append(heading, text, button(cancelText, onCancel), button(okText, onOk));
    document.body.append(dialog);
    dialog.showModal();
    return { destroy: () => dialog.remove() };
}

export default { confirm };
