# A workflow of its own, which copies files and folders of remote storage into the cache, before a project that names them is
# planned: a plan needs their content. `hv15 fetch` calls it, and so does a run. Snakemake's storage plugin reads the storage,
# with its own settings and environment variables; what is newer there than here is copied again.
from hv15.project.remote import take, wanted

# By number: the path there, the folder or file here, the note that it is here.
WANTED = wanted()


rule all:
    default_target: True
    input:
        [each.note for each in WANTED],


for EACH in WANTED:

    rule:
        name:
            f"fetch_{EACH.number}"
        input:
            storage.s3(EACH.url),
        output:
            EACH.note,
        params:
            item=EACH,
        message:
            "Copying {params.item.url}"
        run:
            take(params.item, input[0], output[0])
