/* What the driver remembers. */

#pragma once
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, NO_DEVICE = 100, INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201, INVALID_HANDLE = 400, ILLEGAL_STATE = 401, NOT_FOUND = 500, NOT_READY = 600,
    ILLEGAL_ADDRESS = 700, CONTEXT_IS_DESTROYED = 709, ALREADY_REGISTERED = 712, NOT_REGISTERED = 713,
    NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907, CAPTURE_WRONG_THREAD = 908,
};

static const struct { int code; const char *name, *text; } results[] = {
    {0, "CUDA_SUCCESS", "no error"}, {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}, {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {4, "CUDA_ERROR_DEINITIALIZED", "driver shutting down"}, {36, "CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER", "newer driver needed"},
    {46, "CUDA_ERROR_DEVICE_UNAVAILABLE", "device busy or unavailable"}, {100, "CUDA_ERROR_NO_DEVICE", "no device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}, {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {214, "CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error"}, {220, "CUDA_ERROR_NVLINK_UNCORRECTABLE", "NVLink error"},
    {226, "CUDA_ERROR_CONTAINED", "contained device exception"}, {304, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}, {401, "CUDA_ERROR_ILLEGAL_STATE", "illegal state"},
    {500, "CUDA_ERROR_NOT_FOUND", "symbol not found"}, {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "illegal memory access"}, {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources"},
    {702, "CUDA_ERROR_LAUNCH_TIMEOUT", "launch timed out"}, {709, "CUDA_ERROR_CONTEXT_IS_DESTROYED", "context is destroyed"},
    {710, "CUDA_ERROR_ASSERT", "device-side assert"}, {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "already registered"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "not registered"}, {714, "CUDA_ERROR_HARDWARE_STACK_ERROR", "hardware stack error"},
    {715, "CUDA_ERROR_ILLEGAL_INSTRUCTION", "illegal instruction"}, {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {717, "CUDA_ERROR_INVALID_ADDRESS_SPACE", "wrong address space"}, {718, "CUDA_ERROR_INVALID_PC", "invalid program counter"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "launch failure"}, {721, "CUDA_ERROR_TENSOR_MEMORY_LEAK", "tensor memory leak"},
    {800, "CUDA_ERROR_NOT_PERMITTED", "not permitted"}, {801, "CUDA_ERROR_NOT_SUPPORTED", "not supported"},
    {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH", "driver versions do not match"},
    {810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", "MPS client terminated"},
    {900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "not permitted while capturing"},
    {901, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "capture was invalidated"},
    {905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION", "dependency leaves the capture"},
    {906, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT", "legacy stream would join the capture"},
    {907, "CUDA_ERROR_CAPTURED_EVENT", "event was recorded in a capture"},
    {908, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD", "capture began in another thread"},
    {911, "CUDA_ERROR_EXTERNAL_DEVICE", "external device failed"}, {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

/* -- What exists ------------------------------------------------------------------------------------------------- */

enum { DEVICES = 8, DEPTH = 64, RANGES = 16, NAMES = 96, RULES = 16, PAGE = 4096 };
enum block_kind { DEVICE = 1, ALLOCATED = 2, REGISTERED = 4, PINNED = ALLOCATED | REGISTERED };
enum op_kind { COPY, FILL, CALL, WAIT };
enum capture { NONE, ACTIVE, INVALID };
enum mode { GLOBAL, THREAD_LOCAL, RELAXED };

typedef void (*host_function)(void *);
typedef struct stream stream;
typedef struct { int device; long retains; stream *legacy; } context;
typedef struct block { struct block *next; char *start; size_t size; enum block_kind kind; context *owner; } block;
typedef struct { char *start; size_t size; enum block_kind kind; } range;

typedef struct op {
    struct op *next;
    enum op_kind kind;
    char *target, *source, *staged;
    size_t size;
    int fill;
    host_function function;
    void *argument;
    stream *other;
    long mark;
    range ranges[RANGES];
    int range_count;
    bool dropped;
} op;

typedef struct { op *first, **end; } ops;

struct stream {
    stream *next;
    context *owner;
    bool blocking, gone, busy;
    pthread_t runner;
    ops queue;
    long queued, done;
    enum capture capture;
    enum mode mode;
    pthread_t capturer;
    ops captured;
};

typedef struct event { struct event *next; context *owner; bool gone, captured; stream *stream; long mark; } event;
typedef struct graph { struct graph *next; context *owner; bool gone, executable; ops work; } graph;

/* Structures of streams, events and graphs are never freed: an old handle is recognised, not followed. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static context contexts[DEVICES];
static block *blocks;
static stream *streams;
static event *events;
static graph *graphs;
static __thread context *stack[DEPTH];
static __thread int depth;
static long pushed;
static int device_count = 2;
static bool initialised;
static size_t memory_limit = (size_t)16 << 30, memory_used;

static int dead;
static bool stack_survives;
static struct { const char *name; long calls; } counts[NAMES];
static struct { char name[48]; long from, to; int code; } rules[RULES];
static long context_errors, unpinned_copies, freed_in_use, bad_frees, abandoned, capture_errors;
