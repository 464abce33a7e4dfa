//! Stories seen from outside: the program as its users meet it, and the rules of the house.
//!
//! | file | story |
//! |---|---|
//! | `command_line` | real data through every verb |
//! | `house_rules` | what every source file obeys |
//! | `program` `sample` `source` `vectors` | what the stories are told with |

mod command_line;
mod house_rules;
mod program;
mod sample;
mod source;
mod vectors;
