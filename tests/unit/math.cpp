// The error bounds that kernels/cpu/math.h states, by sweeps over floats, and the special values.
#include "kernels/cpu/math.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

using namespace nvl;

namespace {

constexpr float INF = std::numeric_limits<float>::infinity();
constexpr float NAN_ = std::numeric_limits<float>::quiet_NaN();

// Distance to the exact value, in units of the last place of the float nearest to it.
double ulps(float y, double exact) {
    float nearest = float(exact);
    double unit = std::nextafter(std::abs(nearest), INF) - double(std::abs(nearest));
    return std::abs(double(y) - exact) / unit;
}

// Every `step`-th float of both signs whose magnitude is in [from, to].
template <class F, class G> double worst(float from, float to, bool negative, F f, G exact) {
    uint32_t begin = std::bit_cast<uint32_t>(from), end = std::bit_cast<uint32_t>(to);
    uint32_t step = std::max<uint32_t>(1, (end - begin) / 400000) | 1;
    double largest = 0;
    for (uint32_t u = begin; u <= end; u += step) {
        float x = std::bit_cast<float>(u);
        for (int sign = 0; sign <= int(negative); sign++, x = -x)
            largest = std::max(largest, ulps(f(x), exact(double(x))));
    }
    return largest;
}

TEST(Math, ErrorsAreWithinTheStatedBounds) {
    auto report = [](const char* name, double found, double bound) {
        EXPECT_LE(found, bound) << name;
        testing::Test::RecordProperty(name, std::to_string(found));
    };
    report("vexp",
           worst(
               1e-9f, 88.7f, true, [](float x) { return vexp(x); }, [](double x) { return std::exp(x); }),
           1.1);
    report("vexp below normal",
           worst(
               87.0f, 103.9f, false, [](float x) { return vexp(-x); }, [](double x) { return std::exp(-x); }),
           1.1);
    report("vlog",
           worst(
               1e-44f, 3e38f, false, [](float x) { return vlog(x); }, [](double x) { return std::log(x); }),
           1.0);
    report("vlog near 1",
           worst(
               0.5f, 2.0f, false, [](float x) { return vlog(x); }, [](double x) { return std::log(x); }),
           1.0);
    report("vsigmoid",
           worst(
               1e-9f, 87.0f, true, [](float x) { return vsigmoid(x); }, [](double x) { return vsigmoid(x); }),
           2.6);
    report("vtanh",
           worst(
               1e-30f, 20.0f, true, [](float x) { return vtanh(x); }, [](double x) { return std::tanh(x); }),
           2.4);
    report("verf",
           worst(
               1e-30f, 6.0f, true, [](float x) { return verf(x); }, [](double x) { return std::erf(x); }),
           2.4);
}

TEST(Math, SpecialValues) {
    EXPECT_EQ(vexp(0.0f), 1.0f);
    EXPECT_EQ(vexp(-0.0f), 1.0f);
    EXPECT_EQ(vexp(-INF), 0.0f);
    EXPECT_EQ(vexp(INF), INF);
    EXPECT_EQ(vexp(-200.0f), 0.0f);
    EXPECT_EQ(vexp(89.0f), INF);
    EXPECT_EQ(vlog(1.0f), 0.0f);
    EXPECT_EQ(vlog(0.0f), -INF);
    EXPECT_EQ(vlog(INF), INF);
    EXPECT_TRUE(std::isnan(vlog(-1.0f)) && std::isnan(vlog(-1e-30f)));
    EXPECT_EQ(vsigmoid(0.0f), 0.5f);
    EXPECT_EQ(vsigmoid(INF), 1.0f);
    EXPECT_EQ(vsigmoid(-INF), 0.0f);
    for (auto f : {+[](float x) { return vtanh(x); }, +[](float x) { return verf(x); }}) {
        EXPECT_EQ(f(0.0f), 0.0f);
        EXPECT_TRUE(std::signbit(f(-0.0f)));
        EXPECT_EQ(f(INF), 1.0f);
        EXPECT_EQ(f(-INF), -1.0f);
    }
    for (auto f : {+[](float x) { return vexp(x); }, +[](float x) { return vlog(x); },
                   +[](float x) { return vtanh(x); }, +[](float x) { return verf(x); },
                   +[](float x) { return vsigmoid(x); }})
        EXPECT_TRUE(std::isnan(f(NAN_)));
}

// What runs in vector lanes gives the bits of the scalar code, so a row's result does not depend on its
// place.
TEST(Math, VectorLanesGiveScalarBits) {
    std::vector<float> x(1003), y(1003);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float(i) - 500) * 0.0713f;
    for (auto& [loop, one] : std::vector<std::pair<std::function<void()>, float (*)(float)>>{
             {[&] {
                  for (size_t i = 0; i < x.size(); i++) y[i] = vexp(x[i]);
              },
              [](float v) { return vexp(v); }},
             {[&] {
                  for (size_t i = 0; i < x.size(); i++) y[i] = vtanh(x[i]);
              },
              [](float v) { return vtanh(v); }},
             {[&] {
                  for (size_t i = 0; i < x.size(); i++) y[i] = verf(x[i]);
              },
              [](float v) { return verf(v); }}}) {
        loop();
        for (size_t i = 0; i < x.size(); i++) EXPECT_EQ(y[i], one(x[i])) << x[i];
    }
}

TEST(Math, SineAndCosineOfRopeAngles) {
    double largest = 0;
    for (int i = 0; i < 200000; i++) {
        double x = double(float(i) * 0.8731f * float(i % 7 + 1)), s, c;
        vsincos(i % 2 ? x : -x, s, c);
        double e = i % 2 ? x : -x;
        largest = std::max({largest, std::abs(s - std::sin(e)), std::abs(c - std::cos(e))});
    }
    EXPECT_LE(largest, 1e-15);
}

} // namespace
