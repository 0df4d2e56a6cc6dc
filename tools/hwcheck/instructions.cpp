#include "tools/hwcheck/instructions.h"

#include "engine/base/check.h"
#include "tools/hwcheck/goldens.h"
#include "tools/hwcheck/report.h"

namespace nvl::hw {

namespace {

// Loose bounds of our own, to be held against the ISA and a device: twice (ex2, rsqrt: 2^-22 relative; rcp: 1
// ulp; lg2: 2^-22, absolute around its zero; tanh: 2^-11 relative).
struct Bound {
    Approximation f;
    const char* name;
    double relative, near_zero;
};
constexpr Bound BOUNDS[] = {{Approximation::ex2, "ex2.approx.ftz", 0x1p-21, 0},
                            {Approximation::lg2, "lg2.approx.ftz", 0x1p-21, 0x1p-21},
                            {Approximation::rcp, "rcp.approx.ftz", 0x1p-22, 0},
                            {Approximation::rsqrt, "rsqrt.approx.ftz", 0x1p-21, 0},
                            {Approximation::tanh, "tanh.approx", 0x1p-10, 0}};

} // namespace

void check_instructions(Report& r, const Setting& s) {
    for (auto run : {hwcheck::mma_of_one_hot_matrices, hwcheck::mma_of_integers, hwcheck::ldmatrix,
                     hwcheck::shuffles, hwcheck::copies}) {
        hwcheck::Golden g = run();
        r.check_that(g.cases > 0 && !g.wrong, g.name,
                     format("%ld of %ld wrong", long(g.wrong), long(g.cases)),
                     {{"cases", g.cases}, {"wrong", g.wrong}});
    }
    int n = s.is_virtual ? 1 << 15 : 1 << 22;
    for (const Bound& b : BOUNDS) {
        hwcheck::Accuracy a = hwcheck::accuracy(b.f, n);
        bool ok = a.relative <= b.relative && a.absolute_near_zero <= b.near_zero;
        std::string text = format("relative %.2g, at most %.2g ulp (at %.6g)", a.relative, a.ulps, a.at);
        if (b.near_zero) text += format("; near its zero absolute %.2g", a.absolute_near_zero);
        r.check_that(ok, b.name, text,
                     {{"arguments", n},
                      {"max_ulps", a.ulps},
                      {"max_ulps_at", a.at},
                      {"max_relative", a.relative},
                      {"max_absolute", a.absolute},
                      {"max_absolute_near_zero", a.absolute_near_zero}});
    }
}

} // namespace nvl::hw
