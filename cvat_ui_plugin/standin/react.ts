// SPDX-License-Identifier: MIT
// Stands in for React, which CVAT's page brings, as far as the plugin's message needs it: elements
// become nodes of the document at once.

export const Fragment = 'fragment';

interface Properties {
    key?: string | number;
    style?: Record<string, string>;
    onClick?: () => void;
}

export function createElement(
    type: string,
    properties: Properties | null,
    ...children: (Node | string)[]
): Node {
    if (type === Fragment) {
        const fragment = document.createDocumentFragment();
        fragment.append(...children);
        return fragment;
    }
    const element = document.createElement(type);
    Object.assign(element.style, properties?.style);
    element.onclick = properties?.onClick ?? null;
    element.append(...children);
    return element;
}
