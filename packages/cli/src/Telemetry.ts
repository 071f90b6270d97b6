/**
 * Spans for OpenTelemetry: the libraries emit plain Effect spans, these layers hand them to a real SDK. Every span of an
 * incident, down to its HTTP requests, bears the attribute `recovery.incident`, so that one query finds them all.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import type { AttributeValue } from "@opentelemetry/api"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http"
import { BatchSpanProcessor, type ReadableSpan, type SpanProcessor } from "@opentelemetry/sdk-trace-base"
import * as Layer from "effect/Layer"

const incident = "recovery.incident"

/** Gives a span the incident of its parent, which may have ended by then; so many ended ones of incidents are remembered. */
const remembered = 4096

const inheritIncident = (): SpanProcessor => {
  const open = new Map<string, ReadableSpan>()
  const ended = new Map<string, AttributeValue>()
  return {
    onStart: (span) => {
      open.set(span.spanContext().spanId, span)
      const parent = span.parentSpanContext?.spanId ?? ""
      const id = open.get(parent)?.attributes[incident] ?? ended.get(parent)
      if (id !== undefined) span.setAttribute(incident, id)
    },
    onEnd: (span) => {
      const { spanId } = span.spanContext()
      open.delete(spanId)
      const id = span.attributes[incident]
      if (id === undefined) return
      ended.set(spanId, id)
      const [oldest] = ended.keys()
      if (ended.size > remembered && oldest !== undefined) ended.delete(oldest)
    },
    forceFlush: () => Promise.resolve(),
    shutdown: () => Promise.resolve()
  }
}

/** Hands all spans to `processor`, which is flushed and shut down when the layer closes. */
export const layer = (processor: SpanProcessor): Layer.Layer<never> =>
  NodeSdk.layer(() => ({ resource: { serviceName: "tinkex" }, spanProcessor: [inheritIncident(), processor] }))

/** Sends spans by OTLP over HTTP to where the `OTEL_EXPORTER_OTLP_*` variables point; default `http://localhost:4318`. */
export const layerOtlp: Layer.Layer<never> = Layer.suspend(() => layer(new BatchSpanProcessor(new OTLPTraceExporter())))
