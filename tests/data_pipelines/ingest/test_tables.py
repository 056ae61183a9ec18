import codecs

import pytest

from data_pipelines.ingest.tables import read_table
from gmmas_jax.errors import UserError


def table(tmp_path, content, name="table.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(path)


def refusal(tmp_path, content, name="table.csv"):
    with pytest.raises(UserError) as caught:
        table(tmp_path, content, name)
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_dialects_read_alike(tmp_path, separator, end, mark):
    lines = ["ID;Age;Note", "007; 61 ;Zoë", "", "0012;;x"]
    text = end.join(line.replace(";", separator) for line in lines) + end
    read = table(tmp_path, mark + text.encode())
    assert read.columns == ("ID", "Age", "Note")
    assert read.rows == [
        {"ID": "007", "Age": "61", "Note": "Zoë"},
        {"ID": "0012", "Age": "", "Note": "x"},
    ]
    assert read.lines == [2, 4]
    assert read.notes == ()


def test_the_separator_is_what_cuts_every_row_alike(tmp_path):
    # As many commas as semicolons: decimal commas are text, and so are those of a size.
    read = table(tmp_path, "id;size (x, y, z);age, years\n1;2, 3, 4;60,5\n")
    assert read.columns == ("id", "size (x, y, z)", "age, years")
    assert read.rows == [{"id": "1", "size (x, y, z)": "2, 3, 4", "age, years": "60,5"}]


def test_one_column_and_a_declared_separator(tmp_path):
    assert table(tmp_path, "id\n1\n2\n").rows == [{"id": "1"}, {"id": "2"}]
    read = table(tmp_path, "sep=;\r\na;b\r\n1,5;2\r\n")
    assert (read.rows, read.lines) == ([{"a": "1,5", "b": "2"}], [3])


def test_quoted_cells_hold_separators_and_line_breaks(tmp_path):
    read = table(tmp_path, 'id,diagnosis\n1,"Glioblastoma, IDH-wildtype"\n2,"two\nlines"\n3,x\n')
    assert [row["diagnosis"] for row in read.rows] == [
        "Glioblastoma, IDH-wildtype",
        "two\nlines",
        "x",
    ]
    assert read.lines == [2, 3, 5]


def test_other_encodings(tmp_path):
    read = table(tmp_path, "id,site\n1,Göttingen\n".encode("cp1252"))
    assert read.rows == [{"id": "1", "site": "Göttingen"}]
    assert "read as cp1252" in read.notes[0]
    # 0x81 has no meaning in Windows-1252.
    assert "read as latin-1" in table(tmp_path, b"id,site\n1,\x81\n").notes[0]
    wide = table(tmp_path, "id\tsite\n1\tGöttingen\n".encode("utf-16"))
    assert (wide.rows, wide.notes) == ([{"id": "1", "site": "Göttingen"}], ())


def test_duplicate_rows_are_kept(tmp_path):
    assert len(table(tmp_path, "id,a\n1,2\n1,2\n").rows) == 2


def test_columns_without_a_name(tmp_path):
    counted = table(tmp_path, ",id,\n0,a,\n1,b,\n")
    assert counted.columns == ("id",)
    assert "only counts" in counted.notes[0]
    assert "column 2 has no name but holds 'x'" in refusal(tmp_path, "id,\na,x\n")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no line with text"),
        ("\n \n", "no line with text"),
        ("id,a\n", "only the header id, a"),
        ("id,a,id\n1,2,3\n", "line 1: column 'id' is there twice"),
        ("id,a\n1,2\n\n3\n", "line 4: 1 cells; expected 2"),
        ("id,a\n1,2,3\n", "line 2: 3 cells; expected 2"),
        ('id,a\n1,"x\n', "line 2: no valid CSV"),
        ('id,"a\n1,2\n', "line 1: no valid CSV"),
        (b"id\x00,a\n1,2\n", "no text (zero"),
        (b"\xff\xfe\x00", "no text (zero or undecodable"),
        (b"PK\x03\x04xx", "save the sheet as 'CSV UTF-8'"),
    ],
)
def test_what_is_refused(tmp_path, content, told):
    assert told in refusal(tmp_path, content)


def test_workbooks_and_what_is_no_file(tmp_path):
    assert "leading zeros" in refusal(tmp_path, b"anything", "mapping.xlsx")
    with pytest.raises(UserError, match="No such file"):
        read_table(tmp_path / "absent.csv")
    with pytest.raises(UserError, match="Is a directory"):
        read_table(tmp_path)


def test_odd_paths(tmp_path):
    assert table(tmp_path, "id\n1\n", "-données; 2 .csv").rows == [{"id": "1"}]


def test_real_tables_are_whole(real_data):
    counts = {
        path.name: len(read_table(path).rows) for path in (real_data / "clinical").glob("*.csv")
    }
    assert counts["UCSF-PDGM-metadata_v2.csv"] == 501
    assert counts["UPENN-GBM_clinical_info_v2.1.csv"] == 671
    assert counts["PrognosAIs_patient_labels.csv"] == 627
    assert counts["BraTS19_name_mapping.csv"] == 335
    assert counts["BraTS19_survival_data.csv"] == 259


def test_remarks_above_the_header(tmp_path):
    read = table(tmp_path, "#Patient\tAge\n#STRING\tNUMBER\nPATIENT_ID\tAGE\nx\t3\n")
    assert (read.rows, read.lines) == ([{"PATIENT_ID": "x", "AGE": "3"}], [4])
    assert table(tmp_path, "#id,age\nx,3\n").columns == ("#id", "age")
