// Graphs: what streams recorded, and its launches.
#include <cuda_runtime_api.h>

#include <algorithm>

#include "tools/vgpu/cudart/runtime.h"

using namespace vgpu;
using namespace vgpu::cuda;

namespace {

// Graphs and their instances live until the process ends, so that a stale handle is recognised.
std::vector<std::unique_ptr<CUgraph_st>>& graphs() {
    static auto& all = *new std::vector<std::unique_ptr<CUgraph_st>>;
    return all;
}
std::vector<std::unique_ptr<CUgraphExec_st>>& instances() {
    static auto& all = *new std::vector<std::unique_ptr<CUgraphExec_st>>;
    return all;
}

template <class X> X* checked(std::vector<std::unique_ptr<X>>& all, X* handle, const char* what) {
    for (auto& p : all)
        if (p.get() == handle && p->alive) return handle;
    refuse(cudaErrorInvalidValue, "%p is no %s, or it was destroyed before", static_cast<void*>(handle),
           what);
}

void begin_capture(Runtime& r, CUstream_st* s, cudaStreamCaptureMode mode) {
    if (s->legacy) refuse(cudaErrorStreamCaptureUnsupported, "the legacy stream cannot be captured");
    if (s->capture) refuse(cudaErrorIllegalState, "the stream is being captured already");
    static unsigned long long count = 0;
    auto c = std::make_unique<Capture>();
    graphs().push_back(std::make_unique<CUgraph_st>());
    c->graph = graphs().back().get();
    c->origin = s, c->streams = {s}, c->mode = mode, c->thread = std::this_thread::get_id(), c->id = ++count;
    s->capture = c.get(), s->frontier.clear();
    r.captures.push_back(std::move(c));
}

// Every node has to come before something in the stream where the capture began.
bool joined(const Capture& c, const std::vector<CUgraphNode_st*>& frontier) {
    std::vector<bool> reached(c.graph->nodes.size());
    std::vector<CUgraphNode_st*> open = frontier;
    while (!open.empty()) {
        CUgraphNode_st* n = open.back();
        open.pop_back();
        if (reached[size_t(n->index)]) continue;
        reached[size_t(n->index)] = true;
        open.insert(open.end(), n->after.begin(), n->after.end());
    }
    return std::find(reached.begin(), reached.end(), false) == reached.end();
}

void end_capture(Runtime& r, CUstream_st* s, cudaGraph_t* graph) {
    *graph = nullptr;
    Capture* c = s->capture;
    if (!c) refuse(cudaErrorIllegalState, "the stream is not being captured");
    if (c->origin != s) {
        c->broken = true;
        refuse(cudaErrorStreamCaptureUnmatched, "the capture began in another stream");
    }
    if (c->mode != cudaStreamCaptureModeRelaxed && c->thread != std::this_thread::get_id())
        refuse(cudaErrorStreamCaptureWrongThread, "the capture began in another thread");
    bool whole = joined(*c, s->frontier), broken = c->broken;
    CUgraph_st* made = c->graph;
    for (CUstream_st* each : c->streams) each->capture = nullptr, each->frontier.clear();
    std::erase_if(r.captures, [&](auto& p) { return p.get() == c; });
    if (broken) refuse(cudaErrorStreamCaptureInvalidated, "a call that cannot be captured came in between");
    if (!whole)
        refuse(cudaErrorStreamCaptureUnjoined,
               "a stream that joined the capture was not waited for at its end");
    *graph = made;
}

std::vector<CUgraphExec_st::Node> flat(const CUgraph_st& g) {
    std::vector<CUgraphExec_st::Node> nodes;
    for (auto& n : g.nodes) {
        std::vector<int> after;
        for (CUgraphNode_st* a : n->after) after.push_back(a->index);
        nodes.push_back({n->work, std::move(after)});
    }
    return nodes;
}

void instantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
    if (flags & ~0xfull) refuse(cudaErrorInvalidValue, "flags 0x%llx", flags);
    if (flags & cudaGraphInstantiateFlagDeviceLaunch)
        refuse(cudaErrorNotSupported, "launches of graphs from the device");
    auto e = std::make_unique<CUgraphExec_st>();
    e->nodes = flat(*checked(graphs(), graph, "graph"));
    *exec = e.get();
    instances().push_back(std::move(e));
}

// Branches get lanes of their own, so the order between them is as open as between streams.
void launch(Runtime& r, CUgraphExec_st* e, CUstream_st* s) {
    if (s->capture) refuse(cudaErrorNotSupported, "a graph inside a graph");
    Work entry, exit;
    entry.what = "graph begins", exit.what = "graph ends";
    if (e->last) {
        s->gates.push_back(e->last);
        r.clocks.wait(s->lane, e->last->number);
    }
    r.enqueue(s, entry);
    OpRef begin = s->last;
    r.clocks.record(begin->number, s->lane);
    std::vector<OpRef> ops;
    std::vector<bool> continued(e->nodes.size());
    for (size_t i = 0; i < e->nodes.size(); i++) {
        auto& node = e->nodes[i];
        std::vector<OpRef> after{begin};
        uint32_t lane = 0;
        for (int a : node.after) {
            after.push_back(ops[size_t(a)]);
            if (!continued[size_t(a)]) lane = e->lanes[size_t(a)], continued[size_t(a)] = true;
        }
        if (e->lanes.size() <= i) e->lanes.push_back(lane ? lane : r.new_lane());
        for (const OpRef& op : after) r.clocks.wait(e->lanes[i], op->number);
        Work work = node.work.bind ? node.work.bind() : node.work;
        ops.push_back(r.submit(std::move(work), e->lanes[i], std::move(after)));
        r.clocks.record(ops.back()->number, e->lanes[i]);
    }
    if (e->last) r.clocks.forget(e->last->number);
    std::vector<OpRef> ends{begin};
    for (size_t i = 0; i < ops.size(); i++)
        if (!continued[i]) {
            ends.push_back(ops[i]);
            r.clocks.wait(s->lane, ops[i]->number);
        }
    for (const OpRef& op : ops) r.clocks.forget(op->number);
    r.clocks.forget(begin->number);
    exit.device = s->device;
    e->last = s->last = r.submit(exit, s->lane, std::move(ends));
    r.clocks.record(e->last->number, s->lane);
}

void update(CUgraphExec_st* e, CUgraph_st* g, cudaGraphExecUpdateResultInfo* info) {
    cudaGraphExecUpdateResultInfo unused;
    if (!info) info = &unused;
    *info = {cudaGraphExecUpdateSuccess, nullptr, nullptr};
    auto nodes = flat(*g);
    auto no = [&](cudaGraphExecUpdateResult why, size_t i, const char* text) {
        info->result = why;
        if (i < g->nodes.size()) info->errorNode = g->nodes[i].get();
        refuse_quietly(cudaErrorGraphExecUpdateFailure, "%s", text);
    };
    if (nodes.size() != e->nodes.size())
        no(cudaGraphExecUpdateErrorTopologyChanged, nodes.size(), "the numbers of nodes differ");
    for (size_t i = 0; i < nodes.size(); i++) {
        if (nodes[i].after != e->nodes[i].after)
            no(cudaGraphExecUpdateErrorTopologyChanged, i, "the edges differ");
        if (nodes[i].work.kind != e->nodes[i].work.kind)
            no(cudaGraphExecUpdateErrorNodeTypeChanged, i, "a node is of another type");
        if (nodes[i].work.device != e->nodes[i].work.device)
            no(cudaGraphExecUpdateErrorUnsupportedFunctionChange, i, "a node is on another device");
    }
    e->nodes = std::move(nodes);
}

} // namespace

extern "C" {

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    return call("cudaStreamBeginCapture", [&](Runtime& r) { begin_capture(r, r.stream(stream), mode); });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    return call("cudaStreamEndCapture", [&](Runtime& r) { end_capture(r, r.stream(stream), graph); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    return call("cudaStreamIsCapturing", [&](Runtime& r) {
        Capture* c = r.stream(stream)->capture;
        *status = !c          ? cudaStreamCaptureStatusNone
                  : c->broken ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
    });
}

cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus* status,
                                     unsigned long long* id, cudaGraph_t* graph,
                                     const cudaGraphNode_t** nodes, const cudaGraphEdgeData** edges,
                                     size_t* count) {
    return call("cudaStreamGetCaptureInfo", [&](Runtime& r) {
        CUstream_st* s = r.stream(stream);
        Capture* c = s->capture;
        *status = !c          ? cudaStreamCaptureStatusNone
                  : c->broken ? cudaStreamCaptureStatusInvalidated
                              : cudaStreamCaptureStatusActive;
        if (!c) return;
        if (id) *id = c->id;
        if (graph) *graph = c->graph;
        if (nodes) *nodes = s->frontier.data();
        if (edges) *edges = nullptr;
        if (count) *count = s->frontier.size();
    });
}

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    thread_local cudaStreamCaptureMode current = cudaStreamCaptureModeGlobal;
    std::swap(current, *mode);
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long flags) {
    return call("cudaGraphInstantiate", [&](Runtime&) { instantiate(exec, graph, flags); });
}

cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                          unsigned long long flags) {
    return call("cudaGraphInstantiateWithFlags", [&](Runtime&) { instantiate(exec, graph, flags); });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    return call("cudaGraphLaunch", [&](Runtime& r) {
        launch(r, checked(instances(), exec, "graph instance"), r.stream(stream));
    });
}

cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    return call("cudaGraphUpload", [&](Runtime& r) {
        checked(instances(), exec, "graph instance");
        r.stream(stream);
    });
}

cudaError_t cudaGraphExecUpdate(cudaGraphExec_t exec, cudaGraph_t graph,
                                cudaGraphExecUpdateResultInfo* info) {
    return call("cudaGraphExecUpdate", [&](Runtime&) {
        update(checked(instances(), exec, "graph instance"), checked(graphs(), graph, "graph"), info);
    });
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t* nodes, size_t* count) {
    return call("cudaGraphGetNodes", [&](Runtime&) {
        CUgraph_st* g = checked(graphs(), graph, "graph");
        if (nodes)
            for (size_t i = 0; i < std::min(*count, g->nodes.size()); i++) nodes[i] = g->nodes[i].get();
        *count = g->nodes.size();
    });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    return call("cudaGraphDestroy", [&](Runtime&) {
        CUgraph_st* g = checked(graphs(), graph, "graph");
        g->alive = false, g->nodes.clear();
    });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    return call("cudaGraphExecDestroy", [&](Runtime& r) {
        CUgraphExec_st* e = checked(instances(), exec, "graph instance");
        if (e->last) r.clocks.forget(e->last->number);
        e->alive = false, e->nodes.clear(), e->last = nullptr;
    });
}

} // extern "C"
