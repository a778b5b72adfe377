// SPDX-License-Identifier: MIT
// What the plugin needs of the page around it.

import { Job } from './cvat';
import { Report } from './report';

export interface Page {
    /** Show a message that outlives the dialog. */
    tell(report: Report, job: Job): void;
    /** Ask a question that has two answers; rejects with `Cancelled` where the user wants neither. */
    ask(question: { title: string; text: string; yes: string; no: string }): Promise<boolean>;
    /** Draw the annotations of a frame again; CVAT does not after a cancelled run. */
    refresh(job: Job, frame: number): void;
    /** Whether this job is the one that is open in the page. */
    isOpen(job: Job): boolean;
    /** Whether a job is shown in CVAT's Review workspace, where all objects are locked. */
    isReview(): boolean;
    sleep(milliseconds: number): Promise<void>;
    /** Let the page draw and hear the user. It takes no time, also in a hidden tab, where a browser
     * slows timers down to one a minute. */
    breathe(): Promise<void>;
    now(): number;
    /** The text that `keep` stored last in this browser; null if it has stored nothing. */
    kept(): string | null;
    keep(text: string): void;
    /** A number from 0 up to 1. */
    random(): number;
}
