"""Words without meaning of their own, by language. Published as a layer, it serves any number of functions."""

STOPWORDS = {
    "en": frozenset(
        "a an and are as at be but by for from had has have he her his i if in into is it its me my no not of on or"
        " our out she so that the their them then there these they this to up us was we were what when which who will"
        " with would you your".split()
    ),
    "de": frozenset(
        "aber als am an auch auf aus bei bin bis da das dass dem den der des die doch du ein eine einem einen einer er"
        " es für hat ich ihr im in ist ja kein man mit nach nicht noch nur oder sein sich sie sind so und uns vom von"
        " vor war was wenn wer wie wir wird zu zum zur".split()
    ),
}
