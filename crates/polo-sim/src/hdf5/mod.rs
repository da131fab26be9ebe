//! Datasets of D4RL and Minari: what both need of HDF5 itself. All arrays become `f32`, whatever numbers the file
//! holds, in chunks and compressed or not.

mod d4rl;
mod env_spec;
mod minari;
mod spaces;

use std::path::Path;

use hdf5_metno::{
    Error, Extent, File, Group, H5Type, MinorErrorCode,
    filters::Filter,
    types::{TypeDescriptor, VarLenUnicode},
};
use polo_run::{Kind, Problem, Result, folder::replace};

pub(crate) use d4rl::{read as read_d4rl, write as write_d4rl};
pub(crate) use minari::{id as minari_id, read as read_minari, write as write_minari};

/// An array of a file, row by row.
struct Column {
    /// `[rows, size]`.
    values: Vec<f32>,
    rows: usize,
    /// Numbers in a row.
    size: usize,
    /// Whether the file holds integers.
    whole: bool,
}

/// Opens a file to read it.
fn open(path: &Path) -> Result<File> {
    // HDF5's own words for a missing file are of its insides.
    let length = std::fs::File::open(path).and_then(|file| file.metadata()).map(|about| about.len());
    match length {
        Err(error) => return Err(Problem::io("read", path, &error)),
        Ok(0) => return Err(Problem::input("the file is empty").hint("fetch or write it again")),
        Ok(_) => {}
    }
    File::open(path).map_err(|error| {
        if error.contains_minor(MinorErrorCode::NotHdf5) {
            Problem::input("not an HDF5 file").hint("an HDF5 file of D4RL or Minari is wanted")
        } else if error.contains_minor(MinorErrorCode::Truncated) {
            Problem::input("the end of the HDF5 file is missing").hint("fetch or write it again")
        } else {
            damaged("the file", &error)
        }
    })
}

fn damaged(what: &str, error: &Error) -> Problem {
    Problem::input(format!("{what} cannot be read: {error}"))
        .hint("the file is damaged, or another program is writing it; fetch or write it again")
}

/// A subgroup.
fn group(parent: &Group, name: &str) -> Result<Group> {
    parent.group(name).map_err(|error| match parent.dataset(name) {
        Ok(_) => Problem::input(format!("`{name}` is an array, and must be a group"))
            .hint("the file is of another kind, or not written by the format's rules"),
        Err(_) => damaged(&format!("`{name}`"), &error),
    })
}

/// The array `name` in a group that messages call `place`.
fn column(group: &Group, place: &str, name: &str) -> Result<Column> {
    let label = format!("{place}{name}");
    let wrong = |what: String| {
        Problem::input(what).hint("the file is of another kind, or not written by the format's rules")
    };
    let fail = |error: Error| damaged(&format!("`{label}`"), &error);
    // Every part of the path, since HDF5 looks up the last one only.
    let parts = name.match_indices('/').map(|(end, _)| &name[..end]).chain([name]);
    if let Some(missing) = parts.into_iter().find(|part| !group.link_exists(part)) {
        let present = group.member_names().map_err(fail)?;
        // A link that is listed and cannot be followed is damaged, as opening it will say.
        if !present.iter().any(|name| name == missing) {
            let listed: Vec<String> = present.iter().take(12).map(|name| format!("`{name}`")).collect();
            let there = if listed.is_empty() { "nothing".into() } else { listed.join(", ") };
            return Err(wrong(format!("`{place}{missing}` is missing; what there is: {there}")));
        }
    }
    let dataset = match group.dataset(name) {
        Ok(dataset) => dataset,
        Err(_) if group.group(name).is_ok() => {
            return Err(wrong(format!("`{label}` is a group, and must be an array")));
        }
        Err(error) => return Err(fail(error)),
    };
    let whole = match dataset.dtype().and_then(|kind| kind.to_descriptor()) {
        Ok(TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_)) => true,
        Ok(TypeDescriptor::Float(_) | TypeDescriptor::Boolean) => false,
        Ok(other) => return Err(wrong(format!("`{label}` holds {other} and not numbers"))),
        // Half precision among others, which HDF5 itself can convert, or says that it cannot.
        Err(_) => false,
    };
    if !dataset.filters().iter().all(Filter::is_available) {
        return Err(Problem::input(format!(
            "`{label}` is compressed in a way that this build does not know"
        ))
        .hint("write the file again with gzip"));
    }
    let shape = dataset.shape();
    let Some((&rows, each)) = shape.split_first() else {
        return Err(wrong(format!("`{label}` is a single number, and must have a row for each step")));
    };
    let size = each.iter().fold(1usize, |size, each| size.saturating_mul(*each));
    if size == 0 {
        return Err(wrong(format!("`{label}` has rows without numbers")));
    }
    // Before memory is asked for: a damaged header can tell of any size. Deflate packs up to 1,032 to 1.
    let (numbers, held) = (rows.saturating_mul(size), dataset.storage_size());
    if numbers > 1 << 28 && numbers as u64 / 1100 > held {
        return Err(wrong(format!("`{label}` tells of {numbers} numbers, and the file holds {held} bytes")));
    }
    let mut values: Vec<f32> = Vec::new();
    if values.try_reserve_exact(numbers).is_err() {
        return Err(Problem::new(
            Kind::System,
            format!("`{label}` holds {numbers} numbers: not enough memory"),
        )
        .hint("split the dataset, or use a machine with more memory"));
    }
    values.resize(numbers, 0.0);
    dataset.as_reader().read_into_raw(&mut values).map_err(fail)?;
    if let Some(place) = values.iter().position(|number| !number.is_finite()) {
        return Err(Problem::input(format!("{label}[{}] is {}", place / size, values[place]))
            .hint("remove that episode; nothing can be learnt from it"));
    }
    Ok(Column { values, rows, size, whole })
}

/// An array of `rows` rows.
fn column_of(group: &Group, place: &str, name: &str, rows: usize) -> Result<Column> {
    let column = column(group, place, name)?;
    if column.rows != rows {
        return Err(lengths(place, name, column.rows, rows));
    }
    Ok(column)
}

fn lengths(place: &str, name: &str, found: usize, wanted: usize) -> Problem {
    Problem::input(format!("`{place}{name}` has {found} rows, and {wanted} are needed"))
        .hint("all arrays must tell of the same steps; fetch or write the file again")
}

/// An array with one number for each row, `[rows]` or `[rows, 1]`.
fn single(group: &Group, place: &str, name: &str, rows: Option<usize>) -> Result<Vec<f32>> {
    let column = match rows {
        Some(rows) => column_of(group, place, name, rows)?,
        None => column(group, place, name)?,
    };
    if column.size != 1 {
        return Err(Problem::input(format!(
            "`{place}{name}` has {} numbers in a row and not one",
            column.size
        ))
        .hint("the file is of another kind, or not written by the format's rules"));
    }
    Ok(column.values)
}

/// An array of yes and no, stored as booleans or as numbers.
fn flags(group: &Group, place: &str, name: &str, rows: usize) -> Result<Vec<bool>> {
    let numbers = single(group, place, name, Some(rows))?;
    Ok(numbers.into_iter().map(|number| number != 0.0).collect())
}

/// Writes a file by `fill`; see [`replace`].
fn create(path: &Path, fill: impl FnOnce(&File) -> Result<(), Error>) -> Result<()> {
    replace(path, |temporary| {
        let written = File::create(temporary).and_then(|file| {
            fill(&file)?;
            file.close()
        });
        written.map_err(|error| {
            Problem::new(Kind::System, format!("cannot write {}: {error}", path.display()))
                .hint("check that the folder may be written to and that there is space left")
        })
    })
}

/// Writes `[rows]`, or `[rows, size]` where a size is given: in chunks, compressed by gzip, open to be appended to.
fn put<T: H5Type>(group: &Group, name: &str, size: Option<usize>, values: &[T]) -> Result<(), Error> {
    let each = size.unwrap_or(1);
    let rows = values.len() / each.max(1);
    let chunk = (65_536 / each.max(1)).clamp(1, rows.max(1));
    let (mut extents, mut chunks) = (vec![Extent::resizable(rows)], vec![chunk]);
    if let Some(size) = size {
        extents.push(Extent::fixed(size));
        chunks.push(size);
    }
    let dataset = group.new_dataset::<T>().chunk(chunks).shuffle().deflate(4).shape(extents).create(name)?;
    dataset.write_raw(values)
}

/// Writes choices as the integers that they are.
fn put_choices(group: &Group, name: &str, choices: &[f32]) -> Result<(), Error> {
    put(group, name, None, &choices.iter().map(|&choice| choice as i64).collect::<Vec<_>>())
}

fn put_text(group: &Group, name: &str, text: &str) -> Result<(), Error> {
    let text: VarLenUnicode = text.parse().map_err(|_| Error::from("a zero byte in a text"))?;
    group.new_dataset::<VarLenUnicode>().shape(()).create(name)?.write_scalar(&text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[track_caller]
    fn refused(bytes: &[u8], message: &str, hint: &str) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a file.hdf5");
        fs::write(&path, bytes).unwrap();
        let problem = open(&path).unwrap_err();
        assert!(problem.message().contains(message), "{problem}");
        assert!(problem.hint_text().is_some_and(|found| found.contains(hint)), "{problem:?}");
    }

    #[test]
    fn what_is_no_hdf5_or_not_all_of_it_is_told_apart() {
        refused(b"", "the file is empty", "fetch");
        refused(b"observations,actions\n1,2\n", "not an HDF5 file", "D4RL or Minari");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whole.hdf5");
        create(&path, |file| put(file, "rewards", None, &[1.0f32; 5000])).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in [whole.len() - 1, whole.len() / 2, 600] {
            refused(&whole[..cut], "the end of the HDF5 file is missing", "fetch");
        }
        refused(&whole[..40], "the file cannot be read", "damaged");
        refused(&whole[..7], "not an HDF5 file", "wanted");
        let problem = open(&folder.path().join("other.hdf5")).unwrap_err();
        assert!(problem.message().contains("cannot read"), "{problem}");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.hdf5");
        create(&path, |file| put(file, "rewards", None, &[1.0f32])).unwrap();
        let old = fs::read(&path).unwrap();
        let problem = create(&path, |_| Err(Error::from("no more"))).unwrap_err();
        assert_eq!((problem.kind(), problem.message().contains("no more")), (Kind::System, true));
        assert_eq!(fs::read(&path).unwrap(), old);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
