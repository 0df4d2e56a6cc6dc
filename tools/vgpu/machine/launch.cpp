#include "tools/vgpu/machine/launch.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <numeric>
#include <thread>

#include "tools/vgpu/machine/scheduler.h"

namespace vgpu {
namespace {

constexpr uint64_t align_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }
uint32_t total_shared(const Launch& l) { return l.function->static_shared + l.dynamic_shared; }

} // namespace

BlockRunner::BlockRunner(const Launch& l) : launch(l), code(*l.function->code) {
    uint32_t threads = uint32_t(l.block.count()), warps = (threads + 31) / 32;
    uint64_t files = align_up(code.register_bytes, 64) * warps,
             local = align_up(uint64_t(code.local_bytes) * warps * 32, 64);
    uint64_t shared = align_up(total_shared(l), 64);
    uint64_t total = files + local + shared + 64;
    storage.reset(static_cast<std::byte*>(std::aligned_alloc(64, total)));
    std::memset(storage.get(), 0, total);
    block.launch = &l, block.code = &code, block.observer = l.observer;
    block.local = storage.get() + files;
    block.shared = storage.get() + files + local;
    block.shared_bytes = total_shared(l);
    block.warps.resize(warps);
    block.cluster = {&block};
    for (uint32_t k = 0; k < warps; k++) {
        Warp& w = block.warps[k];
        w.block = &block;
        w.file = storage.get() + align_up(code.register_bytes, 64) * k;
        w.lanes = threads - k * 32 >= 32 ? ~0u : (1u << (threads - k * 32)) - 1;
        w.id.number = k;
    }
    block.id.warps = warps, block.id.threads = threads, block.id.shared_bytes = block.shared_bytes;
    fill_constants();
    fill_specials(false);
}

void BlockRunner::fill_constants() {
    for (Warp& w : block.warps) {
        for (const ConstantLanes& c : code.constants) {
            for (int i = 0; i < 32; i++) {
                if (c.width == 2) w.at<uint16_t>(int32_t(c.offset))[i] = uint16_t(c.bits);
                if (c.width == 4) w.at<uint32_t>(int32_t(c.offset))[i] = uint32_t(c.bits);
                if (c.width == 8) w.at<uint64_t>(int32_t(c.offset))[i] = c.bits;
            }
            if (c.width == 0) w.predicate(int32_t(c.offset)) = uint32_t(c.bits);
        }
    }
}

uint64_t BlockRunner::special(Special which, const Warp& w, uint32_t lane) const {
    Dim3 tid = thread_of(w, lane), cta = block.id.block, grid = launch.grid, c = launch.cluster;
    Dim3 cluster_grid{grid.x / c.x, grid.y / c.y, grid.z / c.z},
        cluster_id{cta.x / c.x, cta.y / c.y, cta.z / c.z};
    Dim3 within{cta.x % c.x, cta.y % c.y, cta.z % c.z};
    switch (which) {
    case Special::tid_x: return tid.x;
    case Special::tid_y: return tid.y;
    case Special::tid_z: return tid.z;
    case Special::ntid_x: return launch.block.x;
    case Special::ntid_y: return launch.block.y;
    case Special::ntid_z: return launch.block.z;
    case Special::ctaid_x: return cta.x;
    case Special::ctaid_y: return cta.y;
    case Special::ctaid_z: return cta.z;
    case Special::nctaid_x: return grid.x;
    case Special::nctaid_y: return grid.y;
    case Special::nctaid_z: return grid.z;
    case Special::laneid: return lane;
    case Special::warpid: return w.id.number;
    case Special::nwarpid: return block.id.warps;
    case Special::smid: return block.id.number % 132;
    case Special::nsmid: return 132;
    case Special::gridid: return 1;
    case Special::lanemask_eq: return 1u << lane;
    case Special::lanemask_lt: return (1u << lane) - 1;
    case Special::lanemask_le: return (2ull << lane) - 1;
    case Special::lanemask_gt: return ~uint32_t((2ull << lane) - 1);
    case Special::lanemask_ge: return ~((1u << lane) - 1);
    case Special::dynamic_smem_size: return launch.dynamic_shared;
    case Special::total_smem_size:
    case Special::aggr_smem_size: return block.shared_bytes;
    case Special::clusterid_x: return cluster_id.x;
    case Special::clusterid_y: return cluster_id.y;
    case Special::clusterid_z: return cluster_id.z;
    case Special::nclusterid_x: return cluster_grid.x;
    case Special::nclusterid_y: return cluster_grid.y;
    case Special::nclusterid_z: return cluster_grid.z;
    case Special::cluster_ctaid_x: return within.x;
    case Special::cluster_ctaid_y: return within.y;
    case Special::cluster_ctaid_z: return within.z;
    case Special::cluster_nctaid_x: return c.x;
    case Special::cluster_nctaid_y: return c.y;
    case Special::cluster_nctaid_z: return c.z;
    case Special::cluster_ctarank: return block.cluster_rank;
    case Special::cluster_nctarank: return c.count();
    case Special::is_explicit_cluster: return c.count() > 1;
    }
    return 0;
}

namespace {
/// What differs between the blocks of a launch is the same for all lanes of a warp, and the other way round.
bool differs_by_block(Special s) {
    switch (s) {
    case Special::ctaid_x:
    case Special::ctaid_y:
    case Special::ctaid_z:
    case Special::smid:
    case Special::clusterid_x:
    case Special::clusterid_y:
    case Special::clusterid_z:
    case Special::cluster_ctaid_x:
    case Special::cluster_ctaid_y:
    case Special::cluster_ctaid_z:
    case Special::cluster_ctarank: return true;
    default: return false;
    }
}
} // namespace

void BlockRunner::fill_specials(bool of_block) {
    for (const SpecialLanes& s : code.specials) {
        if (differs_by_block(s.which) != of_block) continue;
        auto offset = int32_t(s.offset);
        uint64_t same = special(s.which, block.warps[0], 0);
        for (Warp& w : block.warps) {
            for (uint32_t i = 0; i < 32; i++) {
                uint64_t v = of_block ? same : special(s.which, w, i);
                if (s.which == Special::gridid)
                    w.at<uint64_t>(offset)[i] = v;
                else if (s.which != Special::is_explicit_cluster)
                    w.at<uint32_t>(offset)[i] = uint32_t(v);
                else
                    w.predicate(offset) = v ? ~0u : 0;
            }
        }
    }
}

void BlockRunner::start(uint64_t number) {
    block.id.number = number;
    block.id.block = {uint32_t(number % launch.grid.x), uint32_t(number / launch.grid.x % launch.grid.y),
                      uint32_t(number / (uint64_t(launch.grid.x) * launch.grid.y))};
    block.id.data = nullptr;
    block.aborted = false, block.instructions = 0, block.progress = 0;
    block.random.seed(uint32_t((launch.seed + 1) * 0x9e3779b97f4a7c15ull >> 32) ^
                      uint32_t(number * 2654435761u));
    next_warp = 0, last_progress = vain_polls = 0;
    block.bulk.clear();
    block.cluster_arrived = block.cluster_phase = 0;
    for (Barrier& b : block.barriers) b = {};
    std::memset(block.shared, 0xff, block.shared_bytes);
    std::memset(block.local, 0xff, size_t(code.local_bytes) * block.warps.size() * 32);
    for (Warp& w : block.warps) {
        w.live = w.lanes;
        w.group_count = 1, w.groups[0] = {0, w.lanes};
        w.turn_over = w.starved = false;
        w.copies.clear();
        w.products.clear();
        w.product_groups = 0, w.again = false, w.idle_polls = 0;
        std::fill(std::begin(w.committed), std::end(w.committed), 0);
        w.id.block = &block.id, w.id.data = nullptr;
    }
    fill_specials(true);
    if (block.observer) block.observer->block_begin(block.id);
}

void BlockRunner::finish() {
    for (const PendingBulk& c : block.bulk)
        complain(*c.issuer, *c.op, Fault::copy_not_waited, c.lane, "nobody has waited for this copy");
    if (block.observer) block.observer->block_end(block.id);
}

namespace {

void check_launch(const Launch& l) {
    const Function* f = l.function;
    auto fail = [&](const std::string& what) { throw Error("launch of " + f->name + ": " + what); };
    if (l.grid.count() == 0 || l.block.count() == 0) fail("the grid or the block is empty");
    if (l.block.count() > f->max_threads)
        fail(std::to_string(l.block.count()) + " threads in a block, the kernel is built for at most " +
             std::to_string(f->max_threads));
    if (l.parameters.size() != f->parameter_bytes)
        fail(std::to_string(l.parameters.size()) + " bytes of parameters, expected " +
             std::to_string(f->parameter_bytes));
    if (l.cluster.count() == 0 || l.grid.x % l.cluster.x || l.grid.y % l.cluster.y || l.grid.z % l.cluster.z)
        fail("the grid is no multiple of the cluster");
}

/// Linear number of block `rank` of cluster `cluster`.
uint64_t block_of(const Launch& l, uint64_t cluster, uint32_t rank) {
    Dim3 c = l.cluster, g{l.grid.x / c.x, l.grid.y / c.y, l.grid.z / c.z};
    uint64_t x = cluster % g.x * c.x + rank % c.x, y = cluster / g.x % g.y * c.y + rank / c.x % c.y;
    uint64_t z = cluster / (uint64_t(g.x) * g.y) * c.z + rank / (c.x * c.y);
    return x + l.grid.x * (y + l.grid.y * z);
}

/// Blocks that are resident together on one worker.
class Residents {
public:
    Residents(const Launch& l, uint32_t clusters) : l(l) {
        for (uint64_t k = 0; k < clusters * l.cluster.count(); k++)
            runners.push_back(std::make_unique<BlockRunner>(l));
    }

    void run(const std::vector<uint64_t>& clusters, LaunchCounts& counts) {
        uint32_t size = uint32_t(l.cluster.count());
        size_t n = clusters.size() * size;
        for (size_t k = 0; k < n; k++) {
            Block& b = runners[k]->block;
            b.cluster_rank = uint32_t(k % size);
            b.cluster.clear();
            for (size_t peer = k / size * size; peer < k / size * size + size; peer++)
                b.cluster.push_back(&runners[peer]->block);
        }
        for (size_t k = 0; k < n; k++) runners[k]->start(block_of(l, clusters[k / size], uint32_t(k % size)));
        std::vector<BlockRunner*> running;
        for (size_t k = 0; k < n; k++) running.push_back(runners[k].get());
        std::minstd_rand random(uint32_t(l.seed + clusters[0] + 1));
        for (size_t turn = 0; !running.empty(); turn++) {
            size_t k = (l.seed ? random() : turn) % running.size();
            if (!running[k]->step()) running.erase(running.begin() + ptrdiff_t(k));
        }
        for (size_t k = 0; k < n; k++) {
            runners[k]->finish();
            for (Warp& w : runners[k]->block.warps) {
                counts.thread_instructions += w.thread_instructions,
                    counts.warp_instructions += w.warp_instructions;
                w.thread_instructions = w.warp_instructions = 0;
            }
        }
    }

private:
    const Launch& l;
    std::vector<std::unique_ptr<BlockRunner>> runners;
};

} // namespace

LaunchCounts run(const Launch& given) {
    Launch l = given;
    if (l.cluster.count() <= 1 && l.function->cluster.count() > 0) l.cluster = l.function->cluster;
    if (l.cluster.count() == 0) l.cluster = {1, 1, 1};
    check_launch(l);
    uint64_t clusters = l.grid.count() / l.cluster.count();
    std::vector<uint64_t> order(clusters);
    std::iota(order.begin(), order.end(), 0);
    if (l.seed) std::shuffle(order.begin(), order.end(), std::mt19937_64(l.seed));
    uint64_t workers = std::clamp<uint64_t>(uint64_t(std::max(l.workers, 1)), 1, clusters);

    std::atomic<uint64_t> next{0};
    std::mutex mutex;
    LaunchCounts total;
    std::exception_ptr error;
    auto work = [&](uint64_t worker) {
        try {
            LaunchCounts counts;
            if (l.cooperative) {
                std::vector<uint64_t> mine;
                for (uint64_t k = worker; k < clusters; k += workers) mine.push_back(order[k]);
                Residents(l, uint32_t(mine.size())).run(mine, counts);
            } else {
                Residents residents(l, 1);
                for (uint64_t k; (k = next++) < clusters;) residents.run({order[k]}, counts);
            }
            std::lock_guard lock(mutex);
            total.thread_instructions += counts.thread_instructions;
            total.warp_instructions += counts.warp_instructions;
        } catch (...) {
            std::lock_guard lock(mutex);
            if (!error) error = std::current_exception();
        }
    };
    std::vector<std::thread> threads;
    for (uint64_t k = 1; k < workers; k++) threads.emplace_back(work, k);
    work(0);
    for (std::thread& t : threads) t.join();
    if (error) std::rethrow_exception(error);
    return total;
}

} // namespace vgpu
