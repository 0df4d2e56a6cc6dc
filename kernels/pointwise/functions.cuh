// functions.h on the device: the functions behind activation and gated, as value and slope.
#pragma once

namespace nvl::cuda_functions {

struct Both {
    float value, slope;
};

__device__ __forceinline__ float logistic(float x) { return 1.f / (1.f + expf(-x)); }

struct Silu {
    static __device__ __forceinline__ float value(float x) { return x * logistic(x); }
    static __device__ __forceinline__ Both both(float x) {
        float s = logistic(x);
        return {x * s, s + x * s * (1 - s)};
    }
};
struct GeluTanh {
    static constexpr float K = 2 * 0.79788456080286535588f; // 2 sqrt(2 / pi)
    static __device__ __forceinline__ float inner(float x) { return K * (x + 0.044715f * x * x * x); }
    static __device__ __forceinline__ float value(float x) { return x * logistic(inner(x)); }
    static __device__ __forceinline__ Both both(float x) {
        float s = logistic(inner(x));
        return {x * s, s + x * s * (1 - s) * K * (1 + 3 * 0.044715f * x * x)};
    }
};
struct GeluErf {
    static __device__ __forceinline__ float phi(float x) {
        return 0.5f * erfcf(x * -0.70710678118654752440f); // erfc keeps its digits where erf is near -1
    }
    static __device__ __forceinline__ float value(float x) { return x * phi(x); }
    static __device__ __forceinline__ Both both(float x) {
        float p = phi(x);
        return {x * p, p + x * 0.39894228040143267794f * expf(-0.5f * x * x)};
    }
};
struct QuickGelu {
    static __device__ __forceinline__ float value(float x) { return x * logistic(1.702f * x); }
    static __device__ __forceinline__ Both both(float x) {
        float s = logistic(1.702f * x);
        return {x * s, s + 1.702f * x * s * (1 - s)};
    }
};
struct Relu2 {
    static __device__ __forceinline__ float value(float x) { return x < 0 ? 0.f : x * x; }
    static __device__ __forceinline__ Both both(float x) { return {value(x), x < 0 ? 0.f : 2 * x}; }
};
struct Relu {
    static __device__ __forceinline__ float value(float x) { return x < 0 ? 0.f : x; }
    static __device__ __forceinline__ Both both(float x) { return {value(x), x > 0 ? 1.f : 0.f}; }
};
struct Sigmoid {
    static __device__ __forceinline__ float value(float x) { return logistic(x); }
    static __device__ __forceinline__ Both both(float x) {
        float s = logistic(x);
        return {s, s * (1 - s)};
    }
};
struct Tanh {
    static __device__ __forceinline__ float value(float x) { return tanhf(x); }
    static __device__ __forceinline__ Both both(float x) {
        float t = tanhf(x);
        return {t, 1 - t * t};
    }
};

} // namespace nvl::cuda_functions
