"""Other people's sets through the data set `folder`: their tables, as they lie on a disk, and the parameter `columns`."""

import pytest

from ageflow.config import ParameterError
from ageflow.data.ages import between
from ageflow.data.prepare import prepare
from ageflow.data.readers import READERS
from ageflow.data.records import checked
from tests.data.test_readers import settings_for, write

# `columns`, the tables, then of each picture what is kept: identity, age, gender, race; or a part of why it is not.
SETS = {
    "FFHQ-Aging, in folders": (
        "file={image_number:5}.png, age=age_group",
        {"ffhq_aging_labels.csv": "image_number,age_group,age_group_confidence,gender\n0,0-2,0.9,male\n1001,20-29,1,female\n2,50-69,1,male"},
        {"00000/00000.png": ("00000/00000.png", 1, "male", None), "01000/01001.png": ("01000/01001.png", 24.5, "female", None),
         "00000/00002.png": "'50-69' is of more than one age group"},
    ),
    "FFHQ-Aging, flat": (
        "age=age_group, file={image_number:5}.PNG",
        {"ffhq_aging_labels.csv": "image_number,age_group\n69999,70-120"},
        {"69999.png": ("69999.png", 95, None, None), "70000.png": "no row of ffhq_aging_labels.csv names the file"},
    ),
    "AgeDB": (
        "name={}_{identity}_{age}_{gender}", {},
        {"AgeDB/0_MariaCallas_35_f.jpg": ("MariaCallas", 35, "female", None), "AgeDB/10_Samuel_L_72_m.jpg": ("Samuel_L", 72, "male", None),
         "AgeDB/11_MariaCallas_f.jpg": "the file's name is not {}_{identity}_{age}_{gender}", "AgeDB/12_MariaCallas_150_f.jpg": "lies outside 0 to 120"},
    ),
    "APPA-REAL": (
        "file=file_name, age=real_age",
        {"gt_avg_train.csv": "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n000000.jpg,36,5.05,0.62,4",
         "gt_avg_test.csv": "file_name,num_ratings,apparent_age_avg,apparent_age_std,real_age\n005613.jpg,38,1,0,52",
         "gt_train.csv": "file_name,age\n000000.jpg,7"},
        {"train/000000.jpg": ("train/000000.jpg", 4, None, None), "test/005613.jpg": ("test/005613.jpg", 52, None, None),
         "train/000000.jpg_face.jpg": "no row of gt_avg_test.csv or gt_avg_train.csv names the file"},
    ),
    "FairFace": (
        None,
        {"fairface_label_train.csv": "file,age,gender,race,service_test\ntrain/1.jpg,51-60,Male,East Asian,True",
         "fairface_label_val.csv": "file,age,gender,race,service_test\nval/1.jpg,more than 70,Female,Black,False\nval/2.jpg,9-Mar,Male,White,False"},
        {"train/1.jpg": ("train/1.jpg", 55.5, "male", "East Asian"), "val/1.jpg": ("val/1.jpg", 70, "female", "Black"),
         "val/2.jpg": "'9-Mar' is not a number"},
    ),
    "Adience": (
        "file=faces/{user_id}/coarse_tilt_aligned_face.{face_id}.{original_image}, identity=user_id",
        {"fold_0_data.txt": "user_id\toriginal_image\tface_id\tage\tgender\tx\n30601258@N03\t1.jpg\t1\t(0, 2)\tf\t0\n7@N1\t2.jpg\t5\t(25, 32)\tm\t0",
         "fold_1_data.txt": "user_id\toriginal_image\tface_id\tage\tgender\tx\n7@N1\t3.jpg\t6\t36\tu\t0\n7@N1\t4.jpg\t6\tNone\tm\t0"},
        {"faces/30601258@N03/coarse_tilt_aligned_face.1.1.jpg": ("30601258@N03", 1, "female", None),
         "faces/7@N1/coarse_tilt_aligned_face.5.2.jpg": "'(25, 32)' is of more than one age group",
         "faces/7@N1/coarse_tilt_aligned_face.6.3.jpg": ("7@N1", 36, None, None), "faces/7@N1/coarse_tilt_aligned_face.6.4.jpg": "'None' is not a number"},
    ),
    "MORPH, the public archive": (
        "file=filename, identity=id_num, birth=dob, taken=doa",
        {"Index/Train.csv": "id_num,dob,doa,age,race,gender,filename\n009055,06/30/1950,06/29/2004,1,W,M,009055_1M53.JPG",
         "Index/Validation.csv": "id_num,dob,doa,race,gender,filename\n000007,1/2/1990,3/4/1985,B,F,000007_0F20.JPG",
         "Index/Test.csv": "id_num,dob,doa,race,gender,filename\n000008,31/12/1990,3/4/2005,B,F,000008_0F15.JPG"},
        {"Images/Train/009055_1M53.JPG": ("009055", 53, "male", "W"), "Images/Validation/000007_0F20.JPG": "the age -5 lies outside",
         "Images/Test/000008_0F15.JPG": "of '31/12/1990' and '3/4/2005' one is no date: expected 1950-01-31"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_sets_that_people_bring(tmp_path, name):
    columns, tables, wanted = SETS[name]
    write(tmp_path / "raw", tables | dict.fromkeys(wanted, ""), {})
    reading = READERS["folder"](settings_for("folder", tmp_path / "raw", columns=columns))
    table, rejected = checked(reading)
    labels = table[["identity", "age", "gender", "race"]].itertuples(index=False, name=None)
    found = dict(zip(table["file"], labels, strict=True))
    reasons = {line.file: line.reason for line in [*reading.rejections, *rejected]}
    assert found == {file: kept for file, kept in wanted.items() if isinstance(kept, tuple)}
    refused = {file: kept for file, kept in wanted.items() if isinstance(kept, str)}
    assert reasons.keys() - tables.keys() == refused.keys()  # a table that is not read is told, too
    assert all(part in reasons[file] for file, part in refused.items())


@pytest.mark.parametrize(
    ("birth", "taken", "age"),
    [
        ("1950-06-30", "1990-06-30", 40), ("1950-06-30", "1990-06-29", 39), ("1950-06-30T10:00", "6/29/1990", 39),
        ("1950", "1990-01-01", 40), ("12/31/1950", "1990", 40), ("1950", "50", None), ("1950-02-30", "1990", None),
        ("31.12.1950", "1990", None), ("2001", "1990", -11),
    ],
)  # fmt: skip
def test_ages_between_two_dates(birth, taken, age):
    assert between(birth, taken) == age


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("fil=a", "'fil' is none of file, .*did you mean 'file'"),
        ("file=a, age=b, file=c", "a name stands twice"),
        ("file=", "'file' stands for no column"),
        ("real_age", "'real_age' is none of"),
        ("birth=dob", "both birth and taken"),
        ("name={age}, file=x", "name stands alone"),
        ("name={}_{years}", "'years' is not, once, one of identity, age"),
        ("name={age}_{age}", "'age' is not, once"),
        ("age=years", "x.csv has no column years in its first line: it has file, age, name, name; name its columns"),
        ("file={who}.jpg", "x.csv has no column who"),
        ("file=file,age=name", "x.csv has several columns name: rename"),
    ],
)
def test_columns_that_cannot_be_meant_are_refused_by_name(tmp_path, columns, said):
    write(tmp_path / "raw", {"a.jpg": "", "x.csv": "file,age,name,name\na.jpg,3,1,2"}, {})
    with pytest.raises(ParameterError, match=said):
        READERS["folder"](settings_for("folder", tmp_path / "raw", columns=columns))


@pytest.mark.parametrize("columns", [None, "file,identity", "file,age,gender"])
def test_pictures_without_any_age_serve_for_pre_training(tmp_path, pictures, columns):
    rows = [f"{n}.png{',' * columns.count(',')}" for n in range(3)] if columns else []
    write(tmp_path / "mine", {"x.xlsx": ""} | ({"x.csv": "\n".join([columns, *rows])} if columns else {}), {})
    for number, picture in enumerate(pictures[:3]):
        picture.save(tmp_path / "mine" / f"{number}.png")
    unread = "Of x.xlsx: if it is the table, save it as CSV"
    with pytest.warns(UserWarning, match=f"No face has an age: notebooks 01 and 02 work.*{unread}"):
        faces = prepare(settings_for("folder", tmp_path / "mine"))
    assert len(faces) == 3
    with pytest.raises(ParameterError, match="have no ages: this step needs a data set with ages"):
        _ = faces.groups
    (tmp_path / "mine/x.csv").unlink(missing_ok=True)
    with pytest.raises(ParameterError, match=f"columns = 'age=years': .*mine has no CSV. {unread}"):
        READERS["folder"](settings_for("folder", tmp_path / "mine", columns="age=years"))
