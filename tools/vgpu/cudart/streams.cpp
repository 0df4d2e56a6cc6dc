// Streams and events.
#include <algorithm>

#include "tools/vgpu/cudart/runtime.h"

using namespace vgpu;
using namespace vgpu::cuda;

namespace {

void create_stream(Runtime& r, cudaStream_t* stream, unsigned flags, int priority) {
    if (flags & ~unsigned(cudaStreamNonBlocking)) refuse(cudaErrorInvalidValue, "stream flags 0x%x", flags);
    *stream = r.new_stream(Runtime::current_device(), !(flags & cudaStreamNonBlocking),
                           std::clamp(priority, -5, 0));
}

void create_event(Runtime& r, cudaEvent_t* event, unsigned flags) {
    constexpr unsigned all = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
    if (flags & ~all) refuse(cudaErrorInvalidValue, "event flags 0x%x", flags);
    if (flags & cudaEventInterprocess) refuse(cudaErrorNotSupported, "events between processes");
    auto e = std::make_unique<CUevent_st>();
    e->device = Runtime::current_device(), e->flags = flags;
    *event = e.get();
    r.events.push_back(std::move(e));
}

void record(Runtime& r, CUevent_st* e, CUstream_st* s) {
    if (e->device != s->device)
        refuse(cudaErrorInvalidResourceHandle, "event and stream are on different devices");
    if (s->capture) {
        e->capture = s->capture, e->nodes = s->frontier, e->op = nullptr;
        return;
    }
    Work w;
    w.what = "event record";
    r.enqueue(s, std::move(w));
    if (e->op) r.clocks.forget(e->op->number);
    r.clocks.record(s->last->number, s->lane);
    e->op = s->last, e->capture = nullptr, e->nodes.clear();
}

// A stream that waits for an event of a capture joins that capture.
void wait_captured(Runtime& r, CUstream_st* s, CUevent_st* e) {
    Capture* c = e->capture;
    bool running = std::any_of(r.captures.begin(), r.captures.end(), [&](auto& p) { return p.get() == c; });
    if (!running) {
        if (s->capture)
            refuse(cudaErrorStreamCaptureIsolation, "the event belongs to a capture that has ended");
        refuse(cudaErrorCapturedEvent, "the event was last recorded in a capture that has ended");
    }
    if (s->capture && s->capture != c) {
        s->capture->broken = c->broken = true;
        refuse(cudaErrorStreamCaptureMerge, "the streams are being captured into different graphs");
    }
    if (s->legacy) refuse(cudaErrorStreamCaptureImplicit, "the legacy stream cannot be captured");
    if (!s->capture) {
        s->capture = c;
        s->frontier.clear();
        c->streams.push_back(s);
    }
    for (CUgraphNode_st* n : e->nodes)
        if (std::find(s->frontier.begin(), s->frontier.end(), n) == s->frontier.end())
            s->frontier.push_back(n);
}

void wait_event(Runtime& r, CUstream_st* s, CUevent_st* e) {
    if (e->capture) return wait_captured(r, s, e);
    if (s->capture) {
        if (!e->op) return;
        s->capture->broken = true;
        refuse(cudaErrorStreamCaptureIsolation, "a captured stream waits for work outside of the capture");
    }
    if (!e->op) return;
    s->gates.push_back(e->op);
    r.clocks.wait(s->lane, e->op->number);
}

} // namespace

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    return call("cudaStreamCreate", [&](Runtime& r) { create_stream(r, stream, 0, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    return call("cudaStreamCreateWithFlags", [&](Runtime& r) { create_stream(r, stream, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned flags, int priority) {
    return call("cudaStreamCreateWithPriority",
                [&](Runtime& r) { create_stream(r, stream, flags, priority); });
}

// Work that is still in the stream runs, as on a device.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
    return call("cudaStreamDestroy", [&](Runtime& r) {
        if (!handle || handle == cudaStreamLegacy || handle == cudaStreamPerThread)
            refuse(cudaErrorInvalidResourceHandle, "a default stream cannot be destroyed");
        CUstream_st* s = r.stream(handle);
        if (s->capture) {
            s->capture->broken = true;
            refuse(cudaErrorStreamCaptureUnsupported, "the stream is being captured");
        }
        s->alive = false;
    });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    return call("cudaStreamSynchronize", [&](Runtime& r) { r.synchronize(r.stream(stream)); });
}

cudaError_t cudaStreamQuery(cudaStream_t stream) {
    return call("cudaStreamQuery", [&](Runtime& r) {
        CUstream_st* s = r.stream(stream);
        r.not_while_capturing("a query");
        r.queue.step();
        bool open = s->last && !s->last->done;
        for (const OpRef& gate : s->gates) open |= gate && !gate->done;
        if (open) refuse_quietly(cudaErrorNotReady, "work is pending");
        r.clocks.host_waits_lane(s->lane);
    });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    return call("cudaStreamWaitEvent", [&](Runtime& r) {
        if (flags) refuse(cudaErrorNotSupported, "flags 0x%x of cudaStreamWaitEvent", flags);
        wait_event(r, r.stream(stream), r.event(event));
    });
}

cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
    return call("cudaStreamGetPriority", [&](Runtime& r) { *priority = r.stream(stream)->priority; });
}

cudaError_t cudaStreamGetFlags(cudaStream_t stream, unsigned* flags) {
    return call("cudaStreamGetFlags", [&](Runtime& r) {
        *flags = r.stream(stream)->blocking ? cudaStreamDefault : cudaStreamNonBlocking;
    });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
    return call("cudaLaunchHostFunc", [&](Runtime& r) {
        Work w;
        w.kind = WorkKind::host, w.what = "host function";
        w.run = [=](Op&) { function(data); };
        r.enqueue(r.stream(stream), std::move(w));
    });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    return call("cudaEventCreate", [&](Runtime& r) { create_event(r, event, 0); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    return call("cudaEventCreateWithFlags", [&](Runtime& r) { create_event(r, event, flags); });
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    return call("cudaEventDestroy", [&](Runtime& r) {
        CUevent_st* e = r.event(event);
        e->alive = false;
        if (e->op) r.clocks.forget(e->op->number);
    });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    return call("cudaEventRecord", [&](Runtime& r) { record(r, r.event(event), r.stream(stream)); });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    return call("cudaEventRecordWithFlags", [&](Runtime& r) {
        if (flags) refuse(cudaErrorNotSupported, "external event records");
        record(r, r.event(event), r.stream(stream));
    });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    return call("cudaEventSynchronize", [&](Runtime& r) {
        CUevent_st* e = r.event(event);
        if (e->capture) refuse(cudaErrorCapturedEvent, "the event was recorded in a capture");
        r.not_while_capturing("a synchronisation");
        r.queue.wait({e->op});
        if (e->op) r.clocks.host_waits_event(e->op->number);
    });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
    return call("cudaEventQuery", [&](Runtime& r) {
        CUevent_st* e = r.event(event);
        if (e->capture) refuse(cudaErrorCapturedEvent, "the event was recorded in a capture");
        r.not_while_capturing("a query");
        r.queue.step();
        if (e->op && !e->op->done) refuse_quietly(cudaErrorNotReady, "the event has not happened");
        if (e->op) r.clocks.host_waits_event(e->op->number);
    });
}

// Host time between the two moments: nothing that says anything about a GPU.
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
    return call("cudaEventElapsedTime", [&](Runtime& r) {
        CUevent_st *a = r.event(start), *b = r.event(end);
        if ((a->flags | b->flags) & cudaEventDisableTiming)
            refuse(cudaErrorInvalidResourceHandle, "an event was created with cudaEventDisableTiming");
        if (!a->op || !b->op) refuse(cudaErrorInvalidResourceHandle, "an event was never recorded");
        if (!a->op->done || !b->op->done) refuse_quietly(cudaErrorNotReady, "an event has not happened");
        *ms = std::chrono::duration<float, std::milli>(b->op->finished - a->op->finished).count();
    });
}

} // extern "C"
