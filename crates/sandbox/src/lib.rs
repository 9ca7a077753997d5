//! Backend and Instance: the process sandbox, its single-threaded spawner, and a fake; one contract suite.
