//! Arguments that say how an input is read, where its name does not: the same for every verb.

use clap::Args;
use foveal_datasets::ReadAs;
use foveal_datasets::format::{Format, TruthFormat};

use super::choices;

const HEADING: &str = "How files are read";

/// Whether numbers may be rounded as they are read.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct CastArgs {
    /// Round numbers of f64, or of integers of more than a byte, that f32 does not hold exactly;
    /// without it they are refused.
    #[arg(long, help_heading = HEADING)]
    pub(crate) cast: bool,
}

macro_rules! rows_args {
    ($name:ident, $what:literal, $format:literal, $tensor:literal) => {
        #[derive(Args, Clone, Debug, Default)]
        pub(crate) struct $name {
            #[arg(id = $format, long = $format, value_name = "FORMAT", help_heading = HEADING)]
            #[arg(value_parser = choices::format(), hide_possible_values = true)]
            #[arg(help = concat!("Format of the ", $what, " where no extension names it"))]
            format: Option<Format>,
            #[arg(id = $tensor, long = $tensor, value_name = "NAME", help_heading = HEADING)]
            #[arg(help = concat!("The tensor of the ", $what, " in a .safetensors file or index"))]
            tensor: Option<String>,
        }

        impl $name {
            pub(crate) fn read_as(&self, cast: CastArgs) -> ReadAs {
                ReadAs { format: self.format, tensor: self.tensor.clone(), cast: cast.cast }
            }
        }
    };
}

macro_rules! truth_args {
    ($name:ident, $what:literal, $format:literal) => {
        #[derive(Args, Clone, Copy, Debug, Default)]
        pub(crate) struct $name {
            #[arg(id = $format, long = $format, value_name = "FORMAT", help_heading = HEADING)]
            #[arg(value_parser = choices::truth_format(), hide_possible_values = true)]
            #[arg(help = concat!("Format of the ", $what, " where no extension names it"))]
            pub(crate) format: Option<TruthFormat>,
        }
    };
}

rows_args!(BaseArgs, "vectors", "base-format", "tensor");
rows_args!(QueriesArgs, "queries", "queries-format", "queries-tensor");
rows_args!(HiddenArgs, "hidden states", "hidden-format", "hidden-tensor");
rows_args!(LearnArgs, "samples", "learn-format", "learn-tensor");
rows_args!(BiasArgs, "biases", "bias-format", "bias-tensor");
truth_args!(TruthArgs, "truth", "truth-format");
truth_args!(NextArgs, "next tokens", "next-format");

#[cfg(test)]
mod tests {
    use clap::Parser;
    use foveal_datasets::Element;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        base: BaseArgs,
        #[command(flatten)]
        learn: LearnArgs,
        #[command(flatten)]
        truth: TruthArgs,
        #[command(flatten)]
        cast: CastArgs,
    }

    #[test]
    fn each_input_has_arguments_of_its_own() {
        let line = "x --base-format fbin --learn-tensor a.b --truth-format ivecs --cast";
        let Line { base, learn, truth, cast } = Line::try_parse_from(line.split(' ')).unwrap();
        let format = Some(Format::Bin(Element::F32));
        assert_eq!(base.read_as(cast), ReadAs { format, tensor: None, cast: true });
        let tensor = Some("a.b".to_string());
        assert_eq!(learn.read_as(cast), ReadAs { format: None, tensor, cast: true });
        assert_eq!(truth.format, Some(TruthFormat::Ivecs));
        assert!(Line::try_parse_from(["x", "--base-format", "csv"]).is_err());
        let nothing = Line::try_parse_from(["x"]).unwrap();
        assert_eq!(nothing.base.read_as(nothing.cast), ReadAs::default());
    }
}
