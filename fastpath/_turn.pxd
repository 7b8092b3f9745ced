# Who serves TUN: the thread that opens packets, while there is little to do, or the one that seals.
#
# Each thread waits for a set of descriptors (epoll), and TUN is in the set of the one whose turn it
# is. So at rest an answer leaves from the thread that brought the question, and one thread is woken
# for a packet instead of two; under load both work at the same time. See decision 0030.

from libc.stdint cimport uint32_t, uint64_t

from fastpath._linux cimport (
    EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLLIN, POLLIN, close, epoll_create1, epoll_ctl,
    epoll_event, epoll_wait, poll, pollfd,
)

cdef enum:
    READY_WAKE = 1
    READY_TUN = 2
    READY_UDP4 = 4
    READY_UDP6 = 8
    LITTLE_PACKETS = 3  # at most so many in one round are little to do,
    LITTLE_OCTETS = 8192  # and at most so many octets
    MOST_READY = 4
    CALM_ROUNDS = 64  # so many rounds in a row with little to do end the load

cdef struct Turn:
    int tun
    int wake
    int opening  # the epoll set of the thread that opens
    int sealing  # of the one that seals
    uint64_t calm  # atomic; rounds in a row in which the opening thread had little to do


cdef inline bint is_little(size_t packets, size_t octets) noexcept nogil:
    return packets <= LITTLE_PACKETS and octets <= LITTLE_OCTETS


cdef inline int turn_init(Turn *turn) except -1:
    """Makes two empty sets; after an exception, :func:`turn_clear` closes what was made."""
    turn.sealing = -1
    turn.opening = epoll_create1(EPOLL_CLOEXEC)
    if turn.opening >= 0:
        turn.sealing = epoll_create1(EPOLL_CLOEXEC)
    if turn.sealing < 0:
        raise OSError("no descriptor is left; raise the limit of open files (ulimit -n)")
    return 0


cdef inline void turn_clear(Turn *turn) noexcept nogil:
    if turn.opening >= 0:
        close(turn.opening)
    if turn.sealing >= 0:
        close(turn.sealing)


cdef inline int turn_begin(Turn *turn, int tun, int udp4, int udp6, int wake) except -1:
    """Before the threads start: TUN is the opening thread's."""
    cdef bint done
    turn.tun = tun
    turn.wake = wake
    done = _add(turn.sealing, wake, READY_WAKE) and _add(turn.opening, wake, READY_WAKE)
    done = done and _add(turn.opening, tun, READY_TUN)
    done = done and (udp4 < 0 or _add(turn.opening, udp4, READY_UDP4))
    done = done and (udp6 < 0 or _add(turn.opening, udp6, READY_UDP6))
    if not done:
        raise OSError("a descriptor cannot be waited for (epoll); is it a device or a socket?")
    return 0


cdef inline bint _add(int waiting, int fd, uint32_t ready) noexcept nogil:
    cdef epoll_event event
    event.events = EPOLLIN
    event.data.u32 = ready
    return epoll_ctl(waiting, EPOLL_CTL_ADD, fd, &event) == 0


cdef inline uint32_t turn_wait(int waiting) noexcept nogil:
    """Sleeps until any descriptor of the set is ready; which ones."""
    cdef epoll_event events[MOST_READY]
    cdef uint32_t ready = 0
    cdef int index
    for index in range(epoll_wait(waiting, events, MOST_READY, -1)):
        ready |= events[index].data.u32
    return ready


cdef inline void turn_to_sealing(Turn *turn) noexcept nogil:
    """The opening thread gives TUN away. It may come back at any time after."""
    cdef epoll_event unused  # kernels before 2.6.9 want one
    epoll_ctl(turn.opening, EPOLL_CTL_DEL, turn.tun, &unused)
    _add(turn.sealing, turn.tun, READY_TUN)


cdef inline void turn_to_opening(Turn *turn) noexcept nogil:
    """The sealing thread gives TUN back."""
    cdef epoll_event unused
    epoll_ctl(turn.sealing, EPOLL_CTL_DEL, turn.tun, &unused)
    _add(turn.opening, turn.tun, READY_TUN)


cdef inline void turn_pause(const Turn *turn, int milliseconds) noexcept nogil:
    """Leaves all descriptors alone for a while; ends at once when the pump stops."""
    cdef pollfd fd = pollfd(turn.wake, <short>POLLIN, 0)
    poll(&fd, 1, milliseconds)
