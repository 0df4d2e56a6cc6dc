// Single instructions against formulas of the PTX ISA, on whatever device is there. Needs CUDA alone;
// failures of CUDA itself are std::runtime_error.
#pragma once
#include <cstdint>
#include <string>

enum class Approximation; // instructions.h

namespace hwcheck {

struct Golden {
    std::string name;
    int64_t cases = 0, wrong = 0;
};
Golden mma_of_one_hot_matrices();
Golden mma_of_integers();
Golden ldmatrix();
Golden shuffles();
Golden copies();

/// Largest errors against double over n arguments. For lg2 errors between 1/2 and 2 are apart: it has its
/// zero there.
struct Accuracy {
    double ulps = 0, at = 0; // and its argument
    double relative = 0, absolute = 0, absolute_near_zero = 0;
};
Accuracy accuracy(Approximation f, int n);

} // namespace hwcheck
