//! What everyone exactly agrees on: the raft log on RocksDB.
