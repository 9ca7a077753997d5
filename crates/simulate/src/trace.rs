//! Traces of demand, read from CSV in either of two forms.
//!
//! *Wide*, one row an application: `app,memory_mb,invocations,m0,m1,…`; `m<i>` is the number of instances needed at once
//! in minute `i`. *Long*, one row for each minute in which a function was busy: `minute,function,memory_mb,demand` and, if
//! known, `invocations` (of that minute). Columns of the long form may stand in any order; both forms may have a column
//! `runtime`.

use std::collections::HashMap;
use std::io::Read;

/// Most that a trace may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceLimits {
    /// Bytes of the file.
    pub bytes: u64,
    /// Applications.
    pub apps: usize,
    /// Minutes.
    pub minutes: usize,
    /// Applications times minutes.
    pub cells: usize,
    /// Instances at once.
    pub demand: u32,
    /// Memory of an instance, in MB.
    pub memory_mb: u32,
    /// Calls of one application.
    pub invocations: u64,
}

impl Default for TraceLimits {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            apps: 20_000,
            // A year.
            minutes: 366 * 24 * 60,
            cells: 64_000_000,
            demand: 100_000,
            memory_mb: 1 << 20,
            invocations: 1 << 50,
        }
    }
}

/// One application of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Its name.
    pub name: String,
    /// Its runtime, as written; empty: not known.
    pub runtime: String,
    /// Memory of one instance, in MB.
    pub memory_mb: f64,
    /// Calls in the whole trace.
    pub invocations: u64,
    /// Instances needed at once, minute by minute. As long as the trace has minutes.
    pub demand: Vec<u32>,
}

/// A trace: at least one application, all of the same number of minutes, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    apps: Vec<App>,
    minutes: usize,
}

/// What is wrong with a trace. Lines count from 1, the header being the first.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read, or is no CSV.
    #[error("the trace cannot be read: {0}")]
    Csv(#[from] csv::Error),
    /// A column is missing.
    #[error(
        "the trace has no column {column:?}; it has: {found}. A trace is `app,memory_mb,invocations,m0,m1,…` or `minute,function,memory_mb,demand[,invocations]`"
    )]
    Column {
        /// Which.
        column: String,
        /// The first ones that there are.
        found: String,
    },
    /// A value is not what its column needs.
    #[error("line {line}, column {column:?}: {value:?} is not {wanted}")]
    Value {
        /// Where.
        line: u64,
        /// Which.
        column: String,
        /// What was there, its beginning.
        value: String,
        /// What should be there.
        wanted: String,
    },
    /// The same application, or the same minute of a function, twice.
    #[error("line {line}: {what} is there twice")]
    Twice {
        /// Where the second is.
        line: u64,
        /// What.
        what: String,
    },
    /// A function has two memory sizes or two runtimes.
    #[error("line {line}: function {function:?} had another {column} before")]
    Changed {
        /// Where.
        line: u64,
        /// Whose.
        function: String,
        /// What changed.
        column: &'static str,
    },
    /// There is nothing in it.
    #[error("the trace has no rows")]
    Empty,
    /// It is too large.
    #[error("the trace has more than {max} {what}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: u64,
    },
}

impl Trace {
    /// Applications.
    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    /// Minutes.
    pub fn minutes(&self) -> usize {
        self.minutes
    }

    /// A trace of applications that are already there. `None`: none, or not all as long.
    pub fn new(apps: Vec<App>) -> Option<Self> {
        let minutes = apps.first()?.demand.len();
        (minutes > 0 && apps.iter().all(|app| app.demand.len() == minutes)).then_some(Self { apps, minutes })
    }

    /// Writes it as CSV in the wide form, for [`Trace::read`].
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, target: impl std::io::Write) -> std::io::Result<()> {
        let mut writer = csv::Writer::from_writer(target);
        let fixed = ["app", "memory_mb", "invocations"].map(str::to_owned);
        writer.write_record(fixed.into_iter().chain((0..self.minutes).map(|minute| format!("m{minute}"))))?;
        for app in &self.apps {
            let fixed = [app.name.clone(), app.memory_mb.to_string(), app.invocations.to_string()];
            writer.write_record(fixed.into_iter().chain(app.demand.iter().map(u32::to_string)))?;
        }
        writer.flush()
    }

    /// Reads CSV.
    pub fn read(source: impl Read, limits: &TraceLimits) -> Result<Self, TraceError> {
        // One byte more than allowed tells a file that is too large from one that just fits.
        let mut counted = Counted { inner: source.take(limits.bytes + 1), read: 0 };
        let result = Self::parse(&mut counted, limits);
        if counted.read > limits.bytes {
            return Err(TraceError::TooLarge { what: "bytes", max: limits.bytes });
        }
        result
    }

    fn parse(source: impl Read, limits: &TraceLimits) -> Result<Self, TraceError> {
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let header: Vec<String> =
            reader.headers()?.iter().map(|name| name.trim_start_matches('\u{feff}').to_owned()).collect();
        let long = header.iter().any(|name| name == "minute") && header.iter().any(|name| name == "function");
        let apps =
            if long { long_form(&mut reader, &header, limits)? } else { wide_form(&mut reader, &header, limits)? };
        Self::new(apps).ok_or(TraceError::Empty)
    }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

/// Columns of a header by name.
struct Columns<'a> {
    header: &'a [String],
}

impl Columns<'_> {
    fn find(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    fn need(&self, name: &str) -> Result<usize, TraceError> {
        self.find(name).ok_or_else(|| {
            let found: Vec<&str> = self.header.iter().take(8).map(String::as_str).collect();
            TraceError::Column { column: name.to_owned(), found: clip(&found.join(", ")) }
        })
    }
}

/// A row with what is needed to say where an error is.
struct Row<'a> {
    header: &'a [String],
    record: &'a csv::StringRecord,
}

impl Row<'_> {
    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn text(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default()
    }

    fn wrong(&self, column: usize, wanted: String) -> TraceError {
        TraceError::Value {
            line: self.line(),
            column: clip(self.header.get(column).map_or("", String::as_str)),
            value: clip(self.text(column)),
            wanted,
        }
    }

    /// A whole number, also when it is written with a point.
    fn whole(&self, column: usize, max: u64) -> Result<u64, TraceError> {
        let text = self.text(column);
        if let Ok(number) = text.parse::<u64>()
            && number <= max
        {
            return Ok(number);
        }
        let number: f64 = text.parse().unwrap_or(f64::NAN);
        // False for what is not a number.
        if number >= 0.0 && number <= max as f64 && number.fract() == 0.0 {
            return Ok(number as u64);
        }
        Err(self.wrong(column, format!("a whole number from 0 to {max}")))
    }

    fn memory(&self, column: usize, limits: &TraceLimits) -> Result<f64, TraceError> {
        let number: f64 = self.text(column).parse().unwrap_or(f64::NAN);
        if number > 0.0 && number <= f64::from(limits.memory_mb) {
            return Ok(number);
        }
        Err(self.wrong(column, format!("a number of MB above 0, up to {}", limits.memory_mb)))
    }

    fn name(&self, column: usize) -> Result<&str, TraceError> {
        match self.text(column) {
            "" => Err(self.wrong(column, "a name".into())),
            name if name.len() > 256 => Err(self.wrong(column, "a name of at most 256 bytes".into())),
            name => Ok(name),
        }
    }
}

fn wide_form<R: Read>(
    reader: &mut csv::Reader<R>,
    header: &[String],
    limits: &TraceLimits,
) -> Result<Vec<App>, TraceError> {
    let columns = Columns { header };
    let (app, memory) = (columns.need("app")?, columns.need("memory_mb")?);
    let invocations = columns.need("invocations")?;
    let runtime = columns.find("runtime");
    let first = columns.need("m0")?;
    let minutes = header.len() - first;
    for minute in 0..minutes {
        // A minute left out would shift all that follow.
        let name = format!("m{minute}");
        if header[first + minute] != name {
            return Err(columns
                .need(&name)
                .err()
                .unwrap_or(TraceError::Column { column: name, found: clip(&header[first + minute]) }));
        }
    }
    if minutes > limits.minutes {
        return Err(TraceError::TooLarge { what: "minutes", max: limits.minutes as u64 });
    }
    let mut apps: Vec<App> = Vec::new();
    let mut seen = HashMap::new();
    for record in reader.records() {
        let record = record?;
        let row = Row { header, record: &record };
        if apps.len() >= limits.apps {
            return Err(TraceError::TooLarge { what: "applications", max: limits.apps as u64 });
        }
        if (apps.len() + 1).saturating_mul(minutes) > limits.cells {
            return Err(TraceError::TooLarge { what: "cells", max: limits.cells as u64 });
        }
        let name = row.name(app)?.to_owned();
        if seen.insert(name.clone(), ()).is_some() {
            return Err(TraceError::Twice { line: row.line(), what: format!("application {name:?}") });
        }
        let demand = (first..header.len()).map(|c| row.whole(c, u64::from(limits.demand)).map(|d| d as u32));
        apps.push(App {
            name,
            runtime: runtime.map_or_else(String::new, |c| clip(row.text(c))),
            memory_mb: row.memory(memory, limits)?,
            invocations: row.whole(invocations, limits.invocations)?,
            demand: demand.collect::<Result<_, _>>()?,
        });
    }
    Ok(apps)
}

fn long_form<R: Read>(
    reader: &mut csv::Reader<R>,
    header: &[String],
    limits: &TraceLimits,
) -> Result<Vec<App>, TraceError> {
    let columns = Columns { header };
    let (minute, function) = (columns.need("minute")?, columns.need("function")?);
    let (memory, demand) = (columns.need("memory_mb")?, columns.need("demand")?);
    let (invocations, runtime) = (columns.find("invocations"), columns.find("runtime"));
    let mut apps: Vec<App> = Vec::new();
    let mut cells: Vec<HashMap<u64, u32>> = Vec::new();
    let mut known: HashMap<String, usize> = HashMap::new();
    let (mut total, mut first, mut last) = (0usize, u64::MAX, 0);
    for record in reader.records() {
        let record = record?;
        let row = Row { header, record: &record };
        let name = row.name(function)?;
        let memory_mb = row.memory(memory, limits)?;
        let app_runtime = runtime.map_or_else(String::new, |c| clip(row.text(c)));
        let at = match known.get(name) {
            Some(at) => *at,
            None => {
                if apps.len() >= limits.apps {
                    return Err(TraceError::TooLarge { what: "functions", max: limits.apps as u64 });
                }
                known.insert(name.to_owned(), apps.len());
                apps.push(App {
                    name: name.to_owned(),
                    runtime: app_runtime.clone(),
                    memory_mb,
                    invocations: 0,
                    demand: Vec::new(),
                });
                cells.push(HashMap::new());
                apps.len() - 1
            }
        };
        for (column, changed) in
            [("memory_mb", apps[at].memory_mb != memory_mb), ("runtime", apps[at].runtime != app_runtime)]
        {
            if changed {
                return Err(TraceError::Changed { line: row.line(), function: clip(name), column });
            }
        }
        // Minutes may count from any beginning: those of an export are minutes since 1970.
        let when = row.whole(minute, u64::from(u32::MAX))?;
        let needed = row.whole(demand, u64::from(limits.demand))? as u32;
        if cells[at].insert(when, needed).is_some() {
            return Err(TraceError::Twice {
                line: row.line(),
                what: format!("minute {when} of function {:?}", clip(name)),
            });
        }
        let calls = match invocations {
            Some(column) => row.whole(column, limits.invocations)?,
            None => u64::from(needed),
        };
        apps[at].invocations = apps[at].invocations.saturating_add(calls);
        if apps[at].invocations > limits.invocations {
            return Err(
                row.wrong(invocations.unwrap_or(demand), format!("small enough: {} calls in all", limits.invocations))
            );
        }
        total += 1;
        (first, last) = (first.min(when), last.max(when));
        if total > limits.cells {
            return Err(TraceError::TooLarge { what: "rows", max: limits.cells as u64 });
        }
    }
    if apps.is_empty() {
        return Err(TraceError::Empty);
    }
    let minutes = (last - first) as usize + 1;
    if minutes > limits.minutes {
        return Err(TraceError::TooLarge { what: "minutes", max: limits.minutes as u64 });
    }
    if apps.len().saturating_mul(minutes) > limits.cells {
        return Err(TraceError::TooLarge { what: "cells", max: limits.cells as u64 });
    }
    for (app, cells) in apps.iter_mut().zip(cells) {
        app.demand = vec![0; minutes];
        for (when, needed) in cells {
            app.demand[(when - first) as usize] = needed;
        }
    }
    // The order of rows means nothing.
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(apps)
}

/// The beginning of a text, for messages.
fn clip(text: &str) -> String {
    text.chars().take(80).collect()
}
