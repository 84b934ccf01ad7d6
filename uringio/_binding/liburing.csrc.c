/* The C half of the binding: fill SQEs and reap CQEs in loops that never touch Python.
 *
 * Records cross the boundary as packed bytes, so that Python builds them with one struct.pack_into
 * and a whole batch costs one call: a cffi call costs as much as filling a dozen SQEs here. The
 * layouts stand a second time in uringio/_ring (layout.py, uring.py) and a test holds the two together. */

#include <errno.h>
#include <liburing.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A reap takes this many rounds of deferred work at the most (8 have been seen in one wake-up), so
 * that a flood of completions cannot keep the event loop from its other tasks. */
#define URINGIO_REAP_ROUNDS_MAX 64

/* An opcode that no kernel has: a member of a chain that was torn apart gets it and fails. */
#define URINGIO_OPCODE_INVALID 0xff

/* Tokens with this bit are parts of many writes: bits 32 to 62 are the `number` of the whole, the
 * rest is the place in its arrays. Numbers are counted up, so that a late cancel hits nothing. */
#define URINGIO_PART (UINT64_C(1) << 63)

/* `results` of a write that was begun, STARTED in many.py. */
#define URINGIO_STARTED INT32_MIN

#define URINGIO_MANY_MAX 16

/* RWF_ATOMIC: older headers lack it. */
#define URINGIO_RWF_ATOMIC 0x40

struct uringio_record {
    uint8_t opcode;
    uint8_t sqe_flags;
    int16_t buffer_index; /* -1: none */
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

struct uringio_many {
    const uint64_t *addresses;
    const uint64_t *offsets;
    const int32_t *lengths;
    int32_t *results;
    uint64_t token;
    uint32_t number;
    uint32_t count, next, in_flight, in_flight_max;
    int32_t fd;
    uint32_t flags;
    int32_t stop;
};

struct uringio_region {
    uint64_t start, end;
    uint32_t first;
};

struct uringio_beside {
    const struct uringio_region *regions;
    uint32_t region_count;
    uint64_t slot_bytes;
    struct uringio_many *running[URINGIO_MANY_MAX];
    uint32_t running_count;
    uint64_t enters, retries;
};

_Static_assert(sizeof(struct uringio_record) == 40, "RECORD in layout.py has this layout");
_Static_assert(sizeof(struct uringio_completion) == 16, "COMPLETION in uring.py has this layout");

/* Register `count` slots as buffers: into entries of the table from `first` on, or, `first` being
 * negative, as a table of their own, for kernels without sparse ones. A `base` of 0 empties the
 * entries instead. The number of entries that were changed, or -errno. */
static int uringio_register_slots(struct io_uring *ring, int first, uintptr_t base,
                                  size_t slot_bytes, unsigned count)
{
    enum { SLOTS_MAX = 16384 }; /* the kernel's own bound on registered buffers */
    if (count == 0 || count > SLOTS_MAX)
        return -EINVAL;
    struct iovec *slots = calloc(count, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < count && base != 0; i++) {
        slots[i].iov_base = (void *)(base + i * slot_bytes);
        slots[i].iov_len = slot_bytes;
    }
    int result;
    if (first < 0) {
        result = io_uring_register_buffers(ring, slots, count);
        result = result < 0 ? result : (int)count;
    } else {
        result = io_uring_register_buffers_update_tag(ring, (unsigned)first, slots, NULL, count);
    }
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

/* Count a system call, and whether the kernel refused it for a while; the result is that. */
static int uringio_entered(struct uringio_beside *beside, int result)
{
    int refused = result == -EINTR || result == -EAGAIN || result == -EBUSY;
    beside->enters++;
    beside->retries += (unsigned)refused;
    return refused;
}

/* Hand over all SQEs that are ready. 0, or -EAGAIN or -EBUSY when some stay queued for a later call;
 * another -errno when the ring is broken. */
static int uringio_flush(struct io_uring *ring, struct uringio_beside *beside)
{
    while (io_uring_sq_ready(ring) > 0) {
        int result = io_uring_submit(ring);
        uringio_entered(beside, result);
        if (result == -EINTR)
            continue;
        if (result <= 0)
            return result < 0 ? result : -EAGAIN;
        uringio_fail_cut_chain(ring);
    }
    return 0;
}

/* Find the registered memory that an address lies in, or NULL: one look for a pool that has not
 * grown, and 14 for one of 16,384 slots that grew one by one. */
static const struct uringio_region *uringio_region_of(const struct uringio_beside *beside,
                                                      uint64_t address)
{
    uint32_t low = 0, high = beside->region_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        const struct uringio_region *region = &beside->regions[middle];
        if (address < region->start)
            high = middle;
        else if (address >= region->end)
            low = middle + 1;
        else
            return region;
    }
    return NULL;
}

/* Reads and writes of memory that lies in one registered slot become fixed operations: the kernel
 * then need not look up and pin the pages. Not atomic ones, which it takes from plain memory only
 * (Linux 6.18 answers EINVAL to a fixed one). */
static void uringio_use_registered(const struct uringio_beside *beside, struct io_uring_sqe *sqe)
{
    if (sqe->opcode != IORING_OP_WRITE && sqe->opcode != IORING_OP_READ)
        return;
    if (sqe->rw_flags & URINGIO_RWF_ATOMIC)
        return;
    const struct uringio_region *region = uringio_region_of(beside, sqe->addr);
    if (region == NULL)
        return;
    uint64_t at = sqe->addr - region->start;
    if (at % beside->slot_bytes + sqe->len > beside->slot_bytes)
        return;
    sqe->opcode = sqe->opcode == IORING_OP_WRITE ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    sqe->buf_index = (uint16_t)(region->first + at / beside->slot_bytes);
}

/* Parts of many writes that are in flight for a descriptor: several of them share its depth. */
static uint32_t uringio_parts_in_flight(const struct uringio_beside *beside, int32_t fd)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < beside->running_count; i++)
        if (beside->running[i]->fd == fd)
            count += beside->running[i]->in_flight;
    return count;
}

/* Begin as many parts of many writes as may be in flight; how many SQEs that made. */
static unsigned uringio_begin_parts(struct io_uring *ring, struct uringio_beside *beside)
{
    unsigned begun = 0;
    for (unsigned i = 0; i < beside->running_count; i++) {
        struct uringio_many *many = beside->running[i];
        uint32_t in_flight = uringio_parts_in_flight(beside, many->fd);
        while (!many->stop && many->next < many->count && in_flight < many->in_flight_max) {
            struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
            if (sqe == NULL)
                return begun;
            uint32_t at = many->next++;
            io_uring_prep_rw(IORING_OP_WRITE, sqe, many->fd,
                             (void *)(uintptr_t)many->addresses[at], (unsigned)many->lengths[at],
                             many->offsets[at]);
            sqe->rw_flags = (int)many->flags;
            sqe->user_data = URINGIO_PART | (uint64_t)many->number << 32 | at;
            uringio_use_registered(beside, sqe);
            many->results[at] = URINGIO_STARTED;
            many->in_flight++;
            in_flight++;
            begun++;
        }
    }
    return begun;
}

/* Note the result of a part. The first that fails keeps those behind it from being begun. */
static void uringio_part_done(struct uringio_beside *beside, uint64_t token, int32_t result)
{
    uint32_t number = (uint32_t)(token >> 32) & 0x7fffffff;
    for (unsigned i = 0; i < beside->running_count; i++) {
        struct uringio_many *many = beside->running[i];
        if (many->number != number)
            continue;
        many->results[(uint32_t)token] = result;
        many->in_flight--;
        if (result <= 0)
            many->stop = 1;
        return;
    }
}

/* Take out one of the many writes that have ended, or NULL. */
static struct uringio_many *uringio_take_ended(struct uringio_beside *beside)
{
    for (unsigned i = 0; i < beside->running_count; i++) {
        struct uringio_many *many = beside->running[i];
        if (many->in_flight > 0 || (!many->stop && many->next < many->count))
            continue;
        beside->running_count--;
        memmove(&beside->running[i], &beside->running[i + 1],
                (beside->running_count - i) * sizeof many);
        return many;
    }
    return NULL;
}

/* Fill `count` records into SQEs, or none where they do not all fit (*filled says which), then
 * begin parts of many writes, and submit all that is ready. The result is that of uringio_flush. */
static int uringio_submit(struct io_uring *ring, struct uringio_beside *beside,
                          const uint8_t *records, unsigned count, unsigned *filled)
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
            sqe->buf_index = (uint16_t)(record.buffer_index < 0 ? 0 : record.buffer_index);
            sqe->user_data = record.token;
            uringio_use_registered(beside, sqe);
        }
        *filled = count;
    }
    int result = uringio_flush(ring, beside);
    while (result == 0 && uringio_begin_parts(ring, beside) > 0)
        result = uringio_flush(ring, beside);
    return result;
}

/* Find the next completion that is there, or NULL. io_uring_peek_cqe would enter the kernel where
 * there is none and work is deferred: once more than the loop below does, and counted by nobody. */
static struct io_uring_cqe *uringio_next_cqe(struct io_uring *ring)
{
    unsigned head = *ring->cq.khead;
    if (head == io_uring_smp_load_acquire(ring->cq.ktail))
        return NULL;
    return &ring->cq.cqes[head & *ring->cq.kring_mask];
}

/* Whether a reap would find a completion, or work that may make one. */
static int uringio_ready(struct io_uring *ring)
{
    return uringio_next_cqe(ring) != NULL ||
           (io_uring_smp_load_acquire(ring->sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

/* Copy completions out, up to `capacity`; *more says that the caller has to call again. Parts of many
 * writes are noted and followed by the next ones here; only the end of the whole is a completion.
 *
 * Under DEFER_TASKRUN the kernel keeps finished work on a list until this task asks for it, one
 * io_uring_get_events runs only a bounded piece of that list (about 20 items), and the eventfd does
 * not fire again for the rest. Links make such work without making completions. So an empty CQ is
 * no reason to stop: a clear IORING_SQ_TASKRUN is.
 *
 * The eventfd fires again for each completion that io_uring_get_events makes here. So it is cleared
 * behind that, or the event loop would wake once more for nothing; and then looked again, or what
 * came before it was cleared would wake nobody. */
static int uringio_reap(struct io_uring *ring, struct uringio_beside *beside, int wakeup_fd,
                        uint8_t *completions, unsigned capacity, int *more)
{
    unsigned count = 0;
    int cleared = 0;
    *more = 1;
    for (int round = 0; round < URINGIO_REAP_ROUNDS_MAX; round++) {
        struct io_uring_cqe *cqe;
        while (count < capacity && (cqe = uringio_next_cqe(ring)) != NULL) {
            if (cqe->user_data & URINGIO_PART) {
                uringio_part_done(beside, cqe->user_data, cqe->res);
            } else {
                struct uringio_completion completion = {cqe->user_data, cqe->res, cqe->flags};
                memcpy(completions + count * sizeof completion, &completion, sizeof completion);
                count++;
            }
            io_uring_cqe_seen(ring, cqe);
        }
        struct uringio_many *ended;
        while (count < capacity && (ended = uringio_take_ended(beside)) != NULL) {
            struct uringio_completion completion = {ended->token, 0, 0};
            memcpy(completions + count * sizeof completion, &completion, sizeof completion);
            count++;
        }
        if (count == capacity)
            return (int)count;
        if (uringio_begin_parts(ring, beside) > 0)
            uringio_flush(ring, beside); /* what stays queued, the next uringio_submit hands over */
        unsigned flags = io_uring_smp_load_acquire(ring->sq.kflags);
        if (!(flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW))) {
            if (cleared) {
                *more = 0;
                return (int)count;
            }
            uint64_t wakes;
            (void)!read(wakeup_fd, &wakes, sizeof wakes); /* EAGAIN: nobody was woken */
            cleared = 1;
            continue;
        }
        cleared = 0;
        int result = io_uring_get_events(ring);
        if (!uringio_entered(beside, result) && result < 0)
            return count > 0 ? (int)count : result;
    }
    return (int)count;
}
