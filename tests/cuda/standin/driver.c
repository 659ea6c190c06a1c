/* A CUDA driver without a card, for tests: what pycuda and cuda-bindings call, as late and as strict as CUDA allows.

   Device memory is memory of the process. What is enqueued on a stream runs only when somebody waits for it (stream,
   event or context), in the thread that waits; queries answer "not ready" until then. So a program that reads a result
   early finds old bytes, and one that overwrites an input early spoils the result, every time.

   One mutex guards everything. It is never held while a host function runs, because those take Python's lock, which
   other threads may hold while they call in here. A stream is run by one thread at a time (`busy`). */

#define _GNU_SOURCE
#include "control.h"
#include "queue.h"
#include "state.h"
#include "stream.h"

/* -- Devices and contexts --------------------------------------------------------------------------------------- */

int cuInit(unsigned flags) {
    ENTER(cuInit, BARE);
    initialised = device_count > 0;
    return initialised ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
    ENTER(cuDriverGetVersion, BARE);
    *version = 13000;
    return SUCCESS;
}

int cuGetErrorName(int code, const char **name) {
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i].code == code) return *name = results[i].name, SUCCESS;
    return *name = "CUDA_ERROR_NOT_LISTED", INVALID_VALUE;
}

int cuGetErrorString(int code, const char **text) {
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i].code == code) return *text = results[i].text, SUCCESS;
    return *text = "not listed", INVALID_VALUE; /* pycuda makes a string of it without a look at the answer. */
}

int cuDeviceGetCount(int *count) {
    ENTER(cuDeviceGetCount, 0);
    *count = device_count;
    return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
    ENTER(cuDeviceGet, 0);
    if (ordinal < 0 || ordinal >= device_count) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

int cuDeviceGetName(char *name, int size, int device) {
    ENTER(cuDeviceGetName, 0);
    snprintf(name, size, "vidsr stand-in %d", device);
    return SUCCESS;
}

int cuDeviceGetPCIBusId(char *name, int size, int device) {
    ENTER(cuDeviceGetPCIBusId, 0);
    snprintf(name, size, "0000:%02x:00.0", device);
    return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    ENTER(cuDeviceTotalMem, 0);
    *bytes = memory_limit;
    return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
    ENTER(cuDeviceGetAttribute, 0);
    *value = attribute == 75 ? 9 : attribute == 76 ? 0 : attribute == 16 ? 4 : 1;
    return SUCCESS;
}

int cuDeviceComputeCapability(int *major, int *minor, int device) {
    ENTER(cuDeviceComputeCapability, 0);
    *major = 9, *minor = 0;
    return SUCCESS;
}

int cuDevicePrimaryCtxRetain(context **made, int device) {
    ENTER(cuDevicePrimaryCtxRetain, 0);
    if (device < 0 || device >= device_count) return INVALID_DEVICE;
    contexts[device].device = device;
    contexts[device].retains++;
    *made = &contexts[device];
    return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int device) {
    ENTER(cuDevicePrimaryCtxRelease, FREES);
    if (!contexts[device].retains) return INVALID_CONTEXT;
    if (!--contexts[device].retains) abandon(&contexts[device]);
    return dead;
}

int cuCtxPushCurrent_v2(context *pushing) {
    ENTER(cuCtxPushCurrent, STACK);
    if (!pushing || depth == DEPTH) return INVALID_VALUE;
    stack[depth++] = pushing;
    pushed++;
    return SUCCESS;
}

int cuCtxPopCurrent_v2(context **popped) {
    ENTER(cuCtxPopCurrent, STACK | FREES);
    if (!depth) {
        context_errors++;
        return INVALID_CONTEXT;
    }
    context *top = stack[--depth];
    if (popped) *popped = top;
    pushed--;
    return dead && !stack_survives ? dead : SUCCESS;
}

int cuCtxGetCurrent(context **current) {
    ENTER(cuCtxGetCurrent, STACK);
    *current = depth ? stack[depth - 1] : NULL;
    return SUCCESS;
}

int cuCtxSetCurrent(context *current) {
    ENTER(cuCtxSetCurrent, STACK);
    if (depth && !current)
        depth--, pushed--;
    else if (depth)
        stack[depth - 1] = current;
    else if (current)
        stack[depth++] = current, pushed++;
    return SUCCESS;
}

int cuCtxGetDevice(int *device) {
    ENTER(cuCtxGetDevice, CONTEXT);
    *device = here()->device;
    return SUCCESS;
}

int cuCtxGetApiVersion(context *of, unsigned *version) {
    ENTER(cuCtxGetApiVersion, 0);
    *version = 3020;
    return SUCCESS;
}

int cuCtxSynchronize(void) {
    ENTER(cuCtxSynchronize, CONTEXT | UNSAFE);
    run_all(here(), false);
    return dead;
}

/* -- Memory ----------------------------------------------------------------------------------------------------- */

int cuMemAlloc_v2(char **address, size_t size) {
    ENTER(cuMemAlloc, CONTEXT | UNSAFE);
    if (!size) return INVALID_VALUE;
    if (size > memory_limit - memory_used) return OUT_OF_MEMORY;
    if (posix_memalign((void **)address, 512, size)) return OUT_OF_MEMORY;
    memset(*address, 0xcd, size);
    memory_used += size;
    add_block(*address, size, DEVICE);
    return SUCCESS;
}

int cuMemFree_v2(char *address) {
    ENTER(cuMemFree, CONTEXT | UNSAFE | FREES);
    return address ? free_block(address, DEVICE, INVALID_VALUE) : dead;
}

int cuMemGetInfo_v2(size_t *unused, size_t *total) {
    ENTER(cuMemGetInfo, CONTEXT);
    *unused = memory_limit - memory_used;
    *total = memory_limit;
    return SUCCESS;
}

int cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    ENTER(cuMemHostAlloc, CONTEXT | UNSAFE);
    if (posix_memalign(address, PAGE, size + !size)) return OUT_OF_MEMORY;
    memset(*address, 0xcd, size);
    add_block(*address, size, ALLOCATED);
    return SUCCESS;
}

int cuMemFreeHost(char *address) {
    ENTER(cuMemFreeHost, CONTEXT | UNSAFE | FREES);
    return free_block(address, ALLOCATED, INVALID_VALUE);
}

int cuMemHostRegister_v2(char *address, size_t size, unsigned flags) {
    ENTER(cuMemHostRegister, CONTEXT | UNSAFE);
    if (!address || !size) return INVALID_VALUE;
    for (block *b = blocks; b; b = b->next)
        if (b->kind & PINNED && address < b->start + b->size && b->start < address + size) return ALREADY_REGISTERED;
    add_block(address, size, REGISTERED);
    return SUCCESS;
}

int cuMemHostUnregister(char *address) {
    ENTER(cuMemHostUnregister, CONTEXT | UNSAFE | FREES);
    return free_block(address, REGISTERED, NOT_REGISTERED);
}

int cuMemHostGetDevicePointer_v2(char **device, char *host, unsigned flags) {
    ENTER(cuMemHostGetDevicePointer, CONTEXT);
    if (!block_around(host, 1, PINNED)) return INVALID_VALUE;
    *device = host;
    return SUCCESS;
}

int cuMemcpyHtoDAsync_v2(char *target, char *source, size_t size, void *handle) {
    ENTER(cuMemcpyHtoDAsync, CONTEXT);
    return copy(target, source, size, handle, DEVICE, PINNED);
}

int cuMemcpyDtoHAsync_v2(char *target, char *source, size_t size, void *handle) {
    ENTER(cuMemcpyDtoHAsync, CONTEXT);
    return copy(target, source, size, handle, PINNED, DEVICE);
}

int cuMemcpyDtoDAsync_v2(char *target, char *source, size_t size, void *handle) {
    ENTER(cuMemcpyDtoDAsync, CONTEXT);
    return copy(target, source, size, handle, DEVICE, DEVICE);
}

int cuMemsetD8Async(char *target, unsigned char value, size_t size, void *handle) {
    ENTER(cuMemsetD8Async, CONTEXT);
    return fill(target, value, size, handle);
}

/* The ones without a stream are legacy calls; ordinary memory is nothing special to them. */
static int legacy_copy(char *target, char *source, size_t size, int into, int from) {
    long before = unpinned_copies;
    int code = copy(target, source, size, NULL, into, from);
    unpinned_copies = before;
    return code;
}

int cuMemcpyHtoD_v2(char *target, char *source, size_t size) {
    ENTER(cuMemcpyHtoD, CONTEXT | UNSAFE);
    return legacy_copy(target, source, size, DEVICE, PINNED);
}

int cuMemcpyDtoH_v2(char *target, char *source, size_t size) {
    ENTER(cuMemcpyDtoH, CONTEXT | UNSAFE);
    return legacy_copy(target, source, size, PINNED, DEVICE);
}

int cuMemcpyDtoD_v2(char *target, char *source, size_t size) {
    ENTER(cuMemcpyDtoD, CONTEXT | UNSAFE);
    return legacy_copy(target, source, size, DEVICE, DEVICE);
}

int cuMemsetD8_v2(char *target, unsigned char value, size_t size) {
    ENTER(cuMemsetD8, CONTEXT | UNSAFE);
    return fill(target, value, size, NULL);
}

/* -- Looking functions up ---------------------------------------------------------------------------------------- */

static void *function_named(const char *name) {
    static const char *const suffixes[] = {"_v4", "_v3", "_v2", "", "WithFlags"};
    Dl_info self;
    if (!dladdr(results, &self)) return NULL;
    void *library = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    void *found = NULL;
    for (size_t i = 0; library && !found && i < sizeof suffixes / sizeof *suffixes; i++) {
        char versioned[128];
        snprintf(versioned, sizeof versioned, "%s%s", name, suffixes[i]);
        found = dlsym(library, versioned);
    }
    if (library) dlclose(library);
    return found;
}

int cuGetProcAddress_v2(const char *name, void **function, int version, uint64_t flags, int *status) {
    *function = function_named(name);
    if (status) *status = !*function;
    return *function ? SUCCESS : NOT_FOUND;
}

int cuGetProcAddress(const char *name, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(name, function, version, flags, NULL);
}
