/**
 * The metrics of all supervision trees of a program.
 *
 * They are counted without cost to the hot paths and handed to Effect's metric registry at most once per turn of the event
 * loop, and once more when a tree ends.
 *
 * | metric | type | attributes |
 * | --- | --- | --- |
 * | `supervision_events_total` | counter | `event`: the tag of a `SupervisionEvent` |
 * | `supervision_messages_total` | counter | |
 * | `supervision_children` | gauge of children that are up | |
 * | `supervision_zombies` | gauge of children that were left behind and still run | |
 *
 * @since 0.1.0
 */
import * as Metric from "effect/Metric"

/**
 * @category metrics
 * @since 0.1.0
 */
export const events = Metric.counter("supervision_events_total", { incremental: true })

/**
 * Messages that actors took from their mailboxes.
 *
 * @category metrics
 * @since 0.1.0
 */
export const messages = Metric.counter("supervision_messages_total", { incremental: true })

/**
 * @category metrics
 * @since 0.1.0
 */
export const children = Metric.gauge("supervision_children")

/**
 * @category metrics
 * @since 0.1.0
 */
export const zombies = Metric.gauge("supervision_zombies")
