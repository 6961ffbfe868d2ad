//! System tests of `smg`: whole nodes, simulated workers, real sockets, faults on purpose.
