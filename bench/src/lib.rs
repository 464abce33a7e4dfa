//! Claims with numbers.
//!
//! `curves.sh` builds an index of each data set and measures recall against speed over list sizes
//! with the program `foveal` itself; `records/` keeps what it printed, named by date and machine.
//! The figures in README come from there.
