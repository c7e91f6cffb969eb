//! One ring per core: executor, direct files, sockets and timers on io_uring.
