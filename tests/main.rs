//! Scenarios from outside: the program as its users meet it, and the rules of the house.
//!
//! | file | scenario |
//! |---|---|
//! | `bad_input` | what is refused, in which words, and that nothing stays behind |
//! | `clients` | the example clients against a server |
//! | `command_line` | real data through every verb |
//! | `damage` | indexes whose bytes changed, by accident or on purpose |
//! | `decode` | the most likely tokens of an output layer |
//! | `help` | what the program says of itself |
//! | `house_rules` | what every source file obeys |
//! | `inputs` | files of every kind and name, pipes, limits of the system, changed files |
//! | `interruptions` | ctrl-c, SIGKILL, a second build, a full disk |
//! | `joins` | truths and lists of keys against the index they are used with |
//! | `generated_data` | the verbs over generated data of every type, shape and format |
//! | `rows_by_key` | rows by key; indexes of the version before |
//! | `parquet` | builds from a table |
//! | `service` | `foveal serve` called over gRPC |
//! | `serving` | a server among signals, silent clients and bad collections |
//! | `program` `sample` `source` `vectors` | what the scenarios use |

#![allow(clippy::unwrap_used, reason = "a scenario may end where it fails")]

mod allowed;
mod bad_input;
mod clients;
mod command_line;
mod damage;
mod decode;
mod generated_data;
mod help;
mod house_rules;
mod inputs;
mod interruptions;
mod joins;
mod parquet;
mod program;
mod rows_by_key;
mod sample;
mod service;
mod serving;
mod source;
mod vectors;
