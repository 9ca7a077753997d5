module mayfly.example/contract

go 1.19
