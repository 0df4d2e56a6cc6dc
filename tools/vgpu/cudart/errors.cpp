// Names and texts of errors, and the last error of a thread.
#include "tools/vgpu/cudart/runtime.h"

using namespace vgpu;
using namespace vgpu::cuda;

namespace {

struct Known {
    cudaError_t status;
    const char *name, *text;
};

#define KNOWN(name, text)                                                                                    \
    { name, #name, text }
const Known known[] = {
    KNOWN(cudaSuccess, "no error"),
    KNOWN(cudaErrorInvalidValue, "invalid argument"),
    KNOWN(cudaErrorMemoryAllocation, "out of memory"),
    KNOWN(cudaErrorInitializationError, "initialization error"),
    KNOWN(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    KNOWN(cudaErrorInvalidPitchValue, "invalid pitch argument"),
    KNOWN(cudaErrorInvalidSymbol, "invalid device symbol"),
    KNOWN(cudaErrorInvalidDevicePointer, "invalid device pointer"),
    KNOWN(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    KNOWN(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    KNOWN(cudaErrorMissingConfiguration, "__global__ function call is not configured"),
    KNOWN(cudaErrorInvalidDeviceFunction, "invalid device function"),
    KNOWN(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    KNOWN(cudaErrorInvalidDevice, "invalid device ordinal"),
    KNOWN(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    KNOWN(cudaErrorNoKernelImageForDevice, "no kernel image is available for execution on the device"),
    KNOWN(cudaErrorInvalidPtx, "a PTX JIT compilation failed"),
    KNOWN(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    KNOWN(cudaErrorSymbolNotFound, "named symbol not found"),
    KNOWN(cudaErrorNotReady, "device not ready"),
    KNOWN(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    KNOWN(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    KNOWN(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    KNOWN(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
    KNOWN(cudaErrorHostMemoryAlreadyRegistered,
          "part or all of the requested memory range is already mapped"),
    KNOWN(cudaErrorHostMemoryNotRegistered, "pointer does not correspond to a registered memory region"),
    KNOWN(cudaErrorLaunchFailure, "unspecified launch failure"),
    KNOWN(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    KNOWN(cudaErrorNotPermitted, "operation not permitted"),
    KNOWN(cudaErrorNotSupported, "operation not supported"),
    KNOWN(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    KNOWN(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    KNOWN(cudaErrorStreamCaptureMerge, "operation would result in a merge of separate capture sequences"),
    KNOWN(cudaErrorStreamCaptureUnmatched, "capture was not ended in the same stream as it began"),
    KNOWN(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    KNOWN(cudaErrorStreamCaptureIsolation, "dependency created on uncaptured work in another stream"),
    KNOWN(cudaErrorStreamCaptureImplicit,
          "operation would make the legacy stream depend on a capturing blocking stream"),
    KNOWN(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    KNOWN(cudaErrorStreamCaptureWrongThread,
          "attempt to terminate a thread-local capture sequence from another thread"),
    KNOWN(cudaErrorGraphExecUpdateFailure,
          "the graph update was not performed because it included changes which "
          "violated constraints specific to instantiated graph update"),
    KNOWN(cudaErrorInvalidClusterSize, "invalid cluster size"),
    KNOWN(cudaErrorUnknown, "unknown error"),
};
#undef KNOWN

const Known* find(cudaError_t status) {
    for (const Known& k : known)
        if (k.status == status) return &k;
    return nullptr;
}

} // namespace

extern "C" {

const char* cudaGetErrorName(cudaError_t status) {
    const Known* k = find(status);
    return k ? k->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t status) {
    const Known* k = find(status);
    return k ? k->text : "unrecognized error code";
}

cudaError_t cudaGetLastError() {
    cudaError_t status = Runtime::last_error();
    Runtime::last_error() = cudaSuccess;
    return status;
}

cudaError_t cudaPeekAtLastError() { return Runtime::last_error(); }

} // extern "C"
