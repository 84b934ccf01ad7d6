/* The C half of the binding: fill SQEs and reap CQEs in loops that never touch Python.
 *
 * Records cross the boundary as packed bytes, so that Python builds them with one struct.pack_into
 * and a whole batch costs one call: a cffi call costs as much as filling a dozen SQEs here. The
 * layouts stand a second time in uringio/_ring/uring.py and a test holds the two together. */

#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* A reap takes this many rounds of deferred work at the most (8 have been seen in one wake-up), so
 * that a flood of completions cannot keep the event loop from its other tasks. */
#define URINGIO_REAP_ROUNDS_MAX 64

/* An opcode that no kernel has: a member of a chain that was torn apart gets it and fails. */
#define URINGIO_OPCODE_INVALID 0xff

struct uringio_record {
    uint8_t opcode;
    uint8_t sqe_flags;
    uint16_t buffer_index;
    int32_t fd;
    uint64_t offset;
    uint64_t address;
    uint32_t length;
    uint32_t op_flags;
    uint64_t token;
};

struct uringio_completion {
    uint64_t token;
    int32_t result;
    uint32_t flags;
};

_Static_assert(sizeof(struct uringio_record) == 40, "RECORD in uring.py has this layout");
_Static_assert(sizeof(struct uringio_completion) == 16, "COMPLETION in uring.py has this layout");

static int uringio_register_slots(struct io_uring *ring, uintptr_t base, size_t slot_bytes,
                                  unsigned count)
{
    enum { SLOTS_MAX = 16384 }; /* the kernel's own bound on registered buffers */
    if (count == 0 || count > SLOTS_MAX)
        return -EINVAL;
    struct iovec *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < count; i++) {
        slots[i].iov_base = (void *)(base + i * slot_bytes);
        slots[i].iov_len = slot_bytes;
    }
    int result = io_uring_register_buffers(ring, slots, count);
    free(slots);
    return result;
}

static int uringio_probe_opcodes(struct io_uring *ring, uint8_t *supported, unsigned count)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(ring);
    if (probe == NULL)
        return -ENOSYS;
    for (unsigned op = 0; op < count; op++)
        supported[op] = (uint8_t)(io_uring_opcode_supported(probe, (int)op) != 0);
    io_uring_free_probe(probe);
    return 0;
}

/* The kernel can stop in mid-batch (no memory for a request), and what it has not taken by then
 * starts again as if nothing had stood before it: the tail of a cut chain would run without
 * waiting for its head, a rename before its fsync. So the tail is made to fail instead. */
static void uringio_fail_cut_chain(struct io_uring *ring)
{
    unsigned mask = *ring->sq.kring_mask;
    unsigned head = io_uring_smp_load_acquire(ring->sq.khead);
    unsigned tail = ring->sq.sqe_tail;
    if (head == tail || !(ring->sq.sqes[(head - 1) & mask].flags & IOSQE_IO_LINK))
        return;
    for (unsigned i = head; i != tail; i++) {
        struct io_uring_sqe *sqe = &ring->sq.sqes[i & mask];
        sqe->opcode = URINGIO_OPCODE_INVALID;
        if (!(sqe->flags & IOSQE_IO_LINK))
            return;
    }
}

/* Fill `count` records into SQEs, or none where they do not all fit (*filled says which), then
 * submit all that is ready. 0 when the kernel took everything; -EAGAIN or -EBUSY when SQEs stay
 * queued for a later call; another -errno when the ring is broken. */
static int uringio_submit(struct io_uring *ring, const uint8_t *records, unsigned count,
                          unsigned *filled)
{
    *filled = 0;
    if (count <= io_uring_sq_space_left(ring)) {
        for (unsigned i = 0; i < count; i++) {
            struct uringio_record record;
            memcpy(&record, records + i * sizeof record, sizeof record);
            struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
            io_uring_prep_rw(record.opcode, sqe, record.fd, (void *)(uintptr_t)record.address,
                             record.length, record.offset);
            sqe->rw_flags = (int)record.op_flags;
            sqe->flags = record.sqe_flags;
            sqe->buf_index = record.buffer_index;
            sqe->user_data = record.token;
        }
        *filled = count;
    }
    while (io_uring_sq_ready(ring) > 0) {
        int result = io_uring_submit(ring);
        if (result == -EINTR)
            continue;
        if (result <= 0)
            return result < 0 ? result : -EAGAIN;
        uringio_fail_cut_chain(ring);
    }
    return 0;
}

/* Copy completions out, up to `capacity`; *more says that the caller has to call again.
 *
 * Under DEFER_TASKRUN the kernel keeps finished work on a list until this task asks for it, one
 * io_uring_get_events runs only a bounded piece of that list (about 20 items), and the eventfd does
 * not fire again for the rest. Links make such work without making completions. So an empty CQ is
 * no reason to stop: a clear IORING_SQ_TASKRUN is. */
static int uringio_reap(struct io_uring *ring, uint8_t *completions, unsigned capacity, int *more)
{
    unsigned count = 0;
    *more = 1;
    for (int round = 0; round < URINGIO_REAP_ROUNDS_MAX; round++) {
        struct io_uring_cqe *cqe;
        while (count < capacity && io_uring_peek_cqe(ring, &cqe) == 0) {
            struct uringio_completion completion = {cqe->user_data, cqe->res, cqe->flags};
            memcpy(completions + count * sizeof completion, &completion, sizeof completion);
            count++;
            io_uring_cqe_seen(ring, cqe);
        }
        if (count == capacity)
            return (int)count;
        unsigned flags = io_uring_smp_load_acquire(ring->sq.kflags);
        if (!(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
            *more = 0;
            return (int)count;
        }
        int result = io_uring_get_events(ring);
        if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
            return count > 0 ? (int)count : result;
    }
    return (int)count;
}
