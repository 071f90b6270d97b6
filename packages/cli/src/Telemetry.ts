/**
 * Spans for OpenTelemetry: the libraries emit plain Effect spans, these layers hand them to a real SDK. Every span of an
 * incident, down to its HTTP requests, bears the attribute `recovery.incident`: one query finds them all.
 */
import * as NodeSdk from "@effect/opentelemetry/NodeSdk"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http"
import { BatchSpanProcessor, type SpanProcessor } from "@opentelemetry/sdk-trace-base"
import * as Layer from "effect/Layer"

/** Hands all spans to `processor`, which is flushed and shut down when the layer closes. */
export const layer = (processor: SpanProcessor): Layer.Layer<never> =>
  NodeSdk.layer(() => ({ resource: { serviceName: "tinkex" }, spanProcessor: processor }))

/** Sends spans by OTLP over HTTP to where the `OTEL_EXPORTER_OTLP_*` variables point; default `http://localhost:4318`. */
export const layerOtlp: Layer.Layer<never> = Layer.suspend(() => layer(new BatchSpanProcessor(new OTLPTraceExporter())))
