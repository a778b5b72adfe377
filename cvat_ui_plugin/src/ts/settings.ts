// SPDX-License-Identifier: MIT
// How objects are tracked, for all runs of a browser. CVAT's dialog shows what one run needs; the rest
// is chosen here, with an action of its own, because CVAT has no other place for a plugin's settings.

import { ActionParameter, Collection, CollectionAction, Core, Job } from './cvat';
import { nothing } from './results';
import { Page } from './page';

export interface Settings {
    /** Which frames an object remembers; null: as the function is set. */
    memory: string | null;
    /** Side of the window in which an object is looked for, in sizes of the object; 0: no window;
     * null: as the function is set. */
    searchRegion: number | null;
    /** By how much the IoU of a polygon with its mask may be short of 1; null: as the function is
     * set. */
    tolerance: number | null;
    /** Least IoU of tracks with few keyframes; null: a keyframe on every frame. */
    sparse: number | null;
    /** Whether frames between drawn ones are tracked from both ends. */
    bothWays: boolean;
}

/** What holds until a user chooses. Change it before the page is built to have others. */
export const DEFAULTS: Settings = {
    memory: null,
    searchRegion: null,
    tolerance: null,
    sparse: null,
    bothWays: false,
};

export const SETTINGS_NAME = 'Segment Anything 2: Settings';
const MEMORY = 'Memory policy';
const REGION = 'Search region';
const TOLERANCE = 'Polygon tolerance';
const KEYFRAMES = 'Keyframes of tracks';
const BETWEEN = 'Between drawn frames';
const AS_SET = 'as the function is set';
const WHOLE = 'the whole image';
const TIMES = ' times the object';
const DENSE = 'on every frame';
const SPARSE = 'as few as keep an IoU of ';
const ONE_END = 'track from one end';
const BOTH_ENDS = 'track from both ends';
const POLICIES = ['official', 'quality', 'anchors'];
const SIZES = ['2', '3', '4'];
const TOLERANCES = ['0', '0.005', '0.01', '0.02', '0.03', '0.05'];
const LIMITS = ['0.98', '0.97', '0.95'];

function numberIn(value: unknown, low: number, high: number): number | null {
    return typeof value === 'number' && value >= low && value <= high ? value : null;
}

/** Settings from a text that this plugin kept; what it does not understand is not set. */
export function settingsFrom(text: string | null): Settings {
    let kept: Partial<Record<keyof Settings, unknown>>;
    try {
        kept = { ...DEFAULTS, ...(JSON.parse(text ?? '{}') as object) };
    } catch {
        kept = DEFAULTS;
    }
    return {
        memory: POLICIES.find((policy) => policy === kept.memory) ?? null,
        searchRegion: kept.searchRegion === 0 ? 0 : numberIn(kept.searchRegion, 1.5, 10),
        tolerance: numberIn(kept.tolerance, 0, 0.1),
        sparse: numberIn(kept.sparse, 0.5, 1),
        bothWays: kept.bothWays === true,
    };
}

function settingsOf(chosen: Record<string, unknown>): Settings {
    const numberOf = (text: string): number | null =>
        text !== '' && Number.isFinite(Number(text)) ? Number(text) : null;
    const memory = String(chosen[MEMORY]);
    const region = String(chosen[REGION]);
    return settingsFrom(
        JSON.stringify({
            memory,
            searchRegion: region === WHOLE ? 0 : numberOf(region.replace(TIMES, '')),
            tolerance: numberOf(String(chosen[TOLERANCE])),
            sparse: numberOf(String(chosen[KEYFRAMES]).replace(SPARSE, '')),
            bothWays: chosen[BETWEEN] === BOTH_ENDS,
        }),
    );
}

/** What a run is told of its settings. */
function settingsText({ memory, searchRegion, tolerance, sparse, bothWays }: Settings): string {
    return [
        `${MEMORY}: ${memory ?? AS_SET}`,
        `${REGION}: ${regionText(searchRegion) ?? AS_SET}`,
        `${TOLERANCE}: ${tolerance ?? AS_SET}`,
        `${KEYFRAMES}: ${sparse === null ? DENSE : `${SPARSE}${sparse}`}`,
        `${BETWEEN}: ${bothWays ? BOTH_ENDS : ONE_END}`,
    ].join('. ');
}

function regionText(size: number | null): string | null {
    if (size === null) return null;
    return size === 0 ? WHOLE : `${size}${TIMES}`;
}

export function createSettingsAction(core: Core, page: Page): CollectionAction {
    class SettingsAction extends core.classes.BaseCollectionAction implements CollectionAction {
        private job: Job | null = null;

        private chosen: Record<string, unknown> = {};

        public get name(): string {
            return SETTINGS_NAME;
        }

        public get parameters(): Record<string, ActionParameter> {
            const { memory, searchRegion, tolerance, sparse, bothWays } = settingsFrom(page.kept());
            const select = (
                first: string,
                others: string[],
                now: string | null,
                content: string,
            ): ActionParameter => ({
                type: 'select',
                // the present setting is always one of the choices
                values: [...new Set([first, ...others, now ?? first])],
                defaultValue: now ?? first,
                tooltip: { type: 'text', content },
            });
            return {
                [MEMORY]: select(
                    AS_SET,
                    POLICIES,
                    memory,
                    'Which frames an object remembers. "quality": those on which it was seen; ' +
                        '"anchors": also those that tell it from others of its kind; ' +
                        '"official": the last six, as SAM 2 was published.',
                ),
                [REGION]: select(
                    AS_SET,
                    [WHOLE, ...SIZES.map((size) => `${size}${TIMES}`)],
                    regionText(searchRegion),
                    'Where an object is looked for. In a window of a few times its size the masks ' +
                        'of small objects are finer, and each object takes a time of its own.',
                ),
                [TOLERANCE]: select(
                    AS_SET,
                    TOLERANCES,
                    tolerance === null ? null : `${tolerance}`,
                    'By how much the IoU of a polygon with its mask may be short of 1. More ' +
                        'tolerance gives fewer points; 0 gives all.',
                ),
                [KEYFRAMES]: select(
                    DENSE,
                    LIMITS.map((limit) => `${SPARSE}${limit}`),
                    sparse === null ? null : `${SPARSE}${sparse}`,
                    'Few keyframes are easier to correct. On the other frames CVAT interpolates; ' +
                        'each is checked.',
                ),
                [BETWEEN]: select(
                    ONE_END,
                    [BOTH_ENDS],
                    bothWays ? BOTH_ENDS : ONE_END,
                    'Frames between two drawn ones can be tracked from both ends. That takes ' +
                        'twice the time, and the surer results are taken. Correct shapes, then ' +
                        'run from the first drawn frame.',
                ),
            };
        }

        public async init(instance: Job, parameters: Record<string, unknown>): Promise<void> {
            this.job = instance;
            this.chosen = parameters;
        }

        public isApplicableForObject(): boolean {
            return false;
        }

        public applyFilter(): Collection {
            return nothing().created;
        }

        public async run() {
            const settings = settingsOf(this.chosen);
            page.keep(JSON.stringify(settings));
            page.tell(
                {
                    kind: 'success',
                    title: 'Settings are kept in this browser',
                    lines: [`${settingsText(settings)}.`, 'They hold from the next run on.'],
                    jumps: [],
                },
                this.job as Job,
            );
            return nothing();
        }

        public async destroy(): Promise<void> {
            this.job = null;
        }
    }
    return new SettingsAction();
}
